//! The Rust client in the conformance suite: a step in, its result out (tests/conformance/README.md).

use std::error::Error as StdError;
use std::time::Duration;

use docpreview_client::{Client, Error, Tls, Watch, v1};
use serde_json::{Map, Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};

type Jobs = Vec<v1::PreviewJob>;
type Failure = Box<dyn StdError>;

/// Answers line by line until the input ends.
#[tokio::main]
async fn main() -> Result<(), Failure> {
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        println!("{}", answer(&serde_json::from_str(&line)?).await?);
    }
    Ok(())
}

async fn answer(step: &Value) -> Result<Value, Failure> {
    let mut jobs = Jobs::new();
    let client = client(step)?;
    let outcome = call(&client, step, &mut jobs).await;
    let error = outcome.err().map_or(Value::Null, |error| {
        eprintln!("{error:?}");
        written(&error)
    });
    Ok(json!({"jobs": jobs.iter().map(job).collect::<Vec<_>>(), "error": error}))
}

fn client(step: &Value) -> Result<Client, Failure> {
    let mut builder = Client::builder(step["target"].as_str().ok_or("no target")?);
    if let Some(token) = step["token"].as_str().map(str::to_owned) {
        builder = builder.token(move || token.clone());
    }
    if let Some(paths) = step["tls"].as_object() {
        builder = builder.tls(tls(paths)?);
    }
    let limit = Duration::from_millis(step["timeout_ms"].as_u64().ok_or("no timeout_ms")?);
    Ok(builder.build()?.within(limit))
}

fn tls(paths: &Map<String, Value>) -> Result<Tls, Failure> {
    let file = |name: &str| paths.get(name).and_then(Value::as_str).map(std::fs::read).transpose();
    let tls = Tls::trusting(file("root_certificates")?.ok_or("no root_certificates")?);
    Ok(match (file("certificate_chain")?, file("private_key")?) {
        (Some(chain), Some(key)) => tls.certificate(chain, key),
        _ => tls,
    })
}

/// Makes the call; `jobs` gets each job as it arrives, so that jobs before an error are included.
async fn call(client: &Client, step: &Value, jobs: &mut Jobs) -> Result<(), Error> {
    let given = &step["with"];
    let (bucket, job_id) = (text(given, "bucket"), text(given, "job_id"));
    let ttl = given["page_url_ttl_ms"].as_u64().map(Duration::from_millis);
    let page_url_ttl = ttl.map(wire);
    match step["call"].as_str().unwrap_or_default() {
        "create" => jobs.push(client.create(create(given)).await?),
        "get" => jobs.push(client.get(v1::GetPreviewJobRequest { bucket, job_id, page_url_ttl }).await?),
        "wait" => {
            let timeout = step["timeout_ms"].as_u64().map(Duration::from_millis).map(wire);
            jobs.push(client.wait(v1::WaitPreviewJobRequest { bucket, job_id, timeout, page_url_ttl }).await?);
        }
        "watch" => follow(client.watch(v1::WatchPreviewJobRequest { bucket, job_id, page_url_ttl }), jobs).await?,
        "create_and_watch" => follow(client.create_and_watch(create(given), ttl).await?, jobs).await?,
        "list" => {
            let page_size = number(given, "page_size").unwrap_or_default();
            let mut all = client.list(v1::ListPreviewJobsRequest { bucket, page_size, ..Default::default() });
            while let Some(job) = all.next().await? {
                jobs.push(job);
            }
        }
        other => panic!("{other} is not a call of the table"),
    }
    Ok(())
}

async fn follow(mut watch: Watch, jobs: &mut Jobs) -> Result<(), Error> {
    while let Some(job) = watch.next().await? {
        jobs.push(job);
    }
    Ok(())
}

fn create(given: &Value) -> v1::CreatePreviewJobRequest {
    v1::CreatePreviewJobRequest {
        bucket: text(given, "bucket"),
        input_object: text(given, "input_object"),
        output: Some(v1::ObjectLocation { object: text(given, "output_object"), ..Default::default() }),
        options: Some(v1::PreviewOptions {
            start_page: number(given, "start_page"),
            end_page: number(given, "end_page"),
            ..Default::default()
        }),
        user_data: text(given, "user_data"),
        request_id: text(given, "request_id"),
        ..Default::default()
    }
}

fn text(given: &Value, name: &str) -> String {
    given[name].as_str().unwrap_or_default().to_owned()
}

fn number(given: &Value, name: &str) -> Option<i32> {
    given[name].as_i64().and_then(|value| value.try_into().ok())
}

fn wire(length: Duration) -> docpreview_client::prost_types::Duration {
    length.try_into().expect("the table's times are short")
}

fn job(job: &v1::PreviewJob) -> Value {
    let result = job.result.clone().unwrap_or_default();
    json!({
        "job_id": job.job_id,
        "state": job.state().as_str_name().trim_start_matches("STATE_"),
        "page_count": result.total_page_count,
        "page_urls": result.pages.iter().filter(|page| !page.url.is_empty()).count(),
    })
}

fn written(error: &Error) -> Value {
    let violations = error.field_violations().iter().map(|bad| json!([bad.field, bad.description]));
    json!({
        "kind": format!("{:?}", error.kind()),
        "code": code(error.code()),
        "reason": error.reason(),
        "message": error.message(),
        "violations": violations.collect::<Vec<_>>(),
        "retry_delay_ms": error.retry_delay().map(|delay| delay.as_millis()),
        "metadata": error.metadata(),
        "request_id": error.request_id(),
    })
}

/// gRPC's own name of a code: that of Rust with underscores.
fn code(code: docpreview_client::Code) -> String {
    let mut name = String::new();
    for letter in format!("{code:?}").chars() {
        if letter.is_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(letter.to_ascii_uppercase());
    }
    name
}
