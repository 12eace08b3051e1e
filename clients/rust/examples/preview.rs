//! From a document of this machine to page images:
//!
//!     cargo run --example preview BUCKET FILE DIRECTORY [TARGET]

use std::process::ExitCode;

use docpreview_client::v1::preview_job::State;
use docpreview_client::{Client, Error, Previewed};

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [bucket, file, directory, target @ ..] = arguments.as_slice() else {
        eprintln!("usage: preview BUCKET FILE DIRECTORY [TARGET]");
        return ExitCode::from(2);
    };
    let target = target.first().map_or("127.0.0.1:50051", String::as_str);
    match preview(target, bucket, file, directory).await {
        Ok(made) if made.job.state() == State::Success => ExitCode::SUCCESS,
        Ok(made) => {
            let failure = made.job.failure.unwrap_or_default();
            eprintln!("{}: {}", failure.reason().as_str_name(), failure.message);
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn preview(target: &str, bucket: &str, file: &str, directory: &str) -> Result<Previewed, Error> {
    let client = Client::builder(target).build()?;
    let made = client
        .preview(file, bucket, directory)
        .on_job(|job| println!("{} {}", job.job_id, job.state().as_str_name()))
        .on_progress(|progress| println!("{} of {} pages", progress.pages_done, progress.pages))
        .await?;
    for file in &made.files {
        println!("{}", file.display());
    }
    Ok(made)
}
