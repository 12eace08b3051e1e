//! Creates a job, prints each of its states and the addresses of its pages:
//!
//!     cargo run --example create_and_watch BUCKET INPUT_OBJECT OUTPUT_TEMPLATE [TARGET]

use std::process::ExitCode;
use std::time::Duration;

use docpreview_client::v1::preview_job::State;
use docpreview_client::{Client, Error, v1};

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [bucket, input_object, output_object, target @ ..] = arguments.as_slice() else {
        eprintln!("usage: create_and_watch BUCKET INPUT_OBJECT OUTPUT_TEMPLATE [TARGET]");
        return ExitCode::from(2);
    };
    let target = target.first().map_or("127.0.0.1:50051", String::as_str);
    let request = v1::CreatePreviewJobRequest {
        bucket: bucket.clone(),
        input_object: input_object.clone(),
        output: Some(v1::ObjectLocation { object: output_object.clone(), ..Default::default() }),
        ..Default::default()
    };
    match follow(target, request).await {
        Ok(State::Success) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn follow(target: &str, request: v1::CreatePreviewJobRequest) -> Result<State, Error> {
    let client = Client::builder(target).build()?;
    let mut watch = client.create_and_watch(request, Some(Duration::from_secs(600))).await?;
    let mut last = State::Unspecified;
    while let Some(job) = watch.try_next().await? {
        println!("{} {}", job.job_id, job.state().as_str_name());
        last = job.state();
        for page in job.result.unwrap_or_default().pages {
            println!("{}", page.url);
        }
    }
    Ok(last)
}
