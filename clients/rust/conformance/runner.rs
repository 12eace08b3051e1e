//! The Rust client in the conformance suite: a step in, its result out (tests/conformance/README.md).

use std::error::Error as StdError;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use docpreview_client::v1::job_failure::Reason;
use docpreview_client::{Client, Error, JobEvent, Kind, Retry, Tls, Watch, v1};
use serde_json::{Map, Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

type Failure = Box<dyn StdError>;

/// What a call gave, as it comes: what came before an error is included.
#[derive(Default)]
struct Outcome {
    jobs: Vec<v1::PreviewJob>,
    rest: Map<String, Value>,
}

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
    let mut outcome = Outcome::default();
    let client = client(step)?;
    let error = call(&client, step, &mut outcome).await.err().map_or(Value::Null, |error| {
        eprintln!("{error:?}");
        written(&error)
    });
    outcome.rest.insert("jobs".to_owned(), outcome.jobs.iter().map(job).collect());
    outcome.rest.insert("error".to_owned(), error);
    Ok(outcome.rest.into())
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

async fn call(client: &Client, step: &Value, outcome: &mut Outcome) -> Result<(), Error> {
    let given = &step["with"];
    let jobs = &mut outcome.jobs;
    let (bucket, job_id) = (text(given, "bucket"), text(given, "job_id"));
    let (path, directory) = (text(given, "path"), text(given, "directory"));
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
            let request = v1::ListPreviewJobsRequest { bucket, page_size, ..Default::default() };
            follow(client.list(request), jobs).await?;
        }
        "watch_many" => {
            let ids = given["job_ids"].as_array().cloned().unwrap_or_default();
            let job_ids = ids.iter().filter_map(Value::as_str).map(str::to_owned).collect();
            let mut events = client.watch_many(v1::WatchPreviewJobsRequest { bucket, job_ids, page_url_ttl });
            let mut errors = Vec::new();
            while let Some(event) = events.try_next().await? {
                match event {
                    JobEvent::Job(job) => jobs.push(job),
                    JobEvent::Error(error) => {
                        let reason = error.reason().as_str_name().trim_start_matches("ERROR_REASON_").to_owned();
                        errors.push(json!([error.job_id, reason]));
                    }
                }
            }
            outcome.rest.insert("job_errors".to_owned(), errors.into());
        }
        "upload" => {
            let mut upload = client.upload(path, bucket).object(text(given, "object"));
            if let Some(content_type) = given["content_type"].as_str() {
                upload = upload.content_type(content_type);
            }
            let uploaded = upload.await?;
            let uploaded = json!({"object": uploaded.object, "content_length": uploaded.content_length});
            outcome.rest.insert("uploaded".to_owned(), uploaded);
        }
        "download" => {
            let job = client.get(v1::GetPreviewJobRequest { bucket, job_id, page_url_ttl }).await?;
            let mut download = client.download(&job, directory);
            if let Some(ttl) = ttl {
                download = download.page_url_ttl(ttl);
            }
            outcome.rest.insert("files".to_owned(), files(&download.await?));
        }
        "preview" => {
            let object = text(given, "output_object");
            let output = Some(v1::ObjectLocation { object, ..Default::default() });
            let request_id = text(given, "request_id");
            let request = v1::CreatePreviewJobRequest { output, request_id, ..Default::default() };
            let mut preview = client.preview(path, bucket, directory).request(request);
            if let Some(object) = given["object"].as_str() {
                preview = preview.object(object);
            }
            let made = preview.await?;
            jobs.push(made.job);
            outcome.rest.insert("files".to_owned(), files(&made.files));
        }
        "busy" => {
            let busy = busy(client, given).await?;
            outcome.rest.insert("busy".to_owned(), busy);
        }
        other => panic!("{other} is not a call of the table"),
    }
    Ok(())
}

async fn follow(mut watch: Watch, jobs: &mut Vec<v1::PreviewJob>) -> Result<(), Error> {
    while let Some(job) = watch.try_next().await? {
        jobs.push(job);
    }
    Ok(())
}

/// Gets and creates beside many watches and waits of one client.
async fn busy(client: &Client, given: &Value) -> Result<Value, Error> {
    let (bucket, job_id) = (text(given, "bucket"), text(given, "job_id"));
    let (watches, waits) = (given["watches"].as_u64().unwrap_or(0), given["waits"].as_u64().unwrap_or(0));
    let short = client.within(Duration::from_secs(10));
    let (_, idle) = gets(&short, &bucket, &job_id).await;
    let (first, mut firsts) = mpsc::unbounded_channel();
    let mut open = JoinSet::new();
    for _ in 0..watches {
        let (bucket, job_id) = (bucket.clone(), job_id.clone());
        let mut watch = client.watch(v1::WatchPreviewJobRequest { bucket, job_id, page_url_ttl: None });
        let first = first.clone();
        open.spawn(async move {
            let _ = first.send(watch.try_next().await);
            while watch.try_next().await.is_ok_and(|job| job.is_some()) {}
        });
    }
    for _ in 0..waits {
        let (client, bucket, job_id) = (client.clone(), bucket.clone(), job_id.clone());
        open.spawn(async move {
            let _ = client.wait(v1::WaitPreviewJobRequest { bucket, job_id, ..Default::default() }).await;
        });
    }
    let mut watching = 0;
    for _ in 0..watches {
        firsts.recv().await.expect("each watch sends one")?.expect("the job runs");
        watching += 1;
    }
    let (succeeded, busy) = gets(&short, &bucket, &job_id).await;
    let mut creates = 0;
    for _ in 0..5 {
        match short.create(create(given)).await {
            Ok(_) => creates += 1,
            Err(error) => eprintln!("{error:?}"),
        }
    }
    open.shutdown().await;
    Ok(json!({"watches": watching, "gets": succeeded, "creates": creates, "get_ms": busy, "idle_get_ms": idle}))
}

/// How many of 20 gets succeed, and how many milliseconds the one in the middle takes.
async fn gets(client: &Client, bucket: &str, job_id: &str) -> (usize, f64) {
    let mut succeeded = 0;
    let mut times = Vec::new();
    for _ in 0..20 {
        let request = v1::GetPreviewJobRequest { bucket: bucket.into(), job_id: job_id.into(), page_url_ttl: None };
        let begin = Instant::now();
        match client.get(request).await {
            Ok(_) => succeeded += 1,
            Err(error) => eprintln!("{error:?}"),
        }
        times.push(begin.elapsed().as_secs_f64() * 1000.0);
    }
    times.sort_by(f64::total_cmp);
    (succeeded, times[times.len() / 2])
}

fn files(paths: &[PathBuf]) -> Value {
    let length = |path: &PathBuf| std::fs::metadata(path).map_or(0, |found| found.len());
    let name = |path: &PathBuf| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    paths.iter().map(|path| json!([name(path), length(path)])).collect()
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
        "failure_reason": match job.failure.as_ref().map(v1::JobFailure::reason) {
            None | Some(Reason::Unspecified) => "",
            Some(reason) => reason.as_str_name().trim_start_matches("REASON_"),
        },
        "page_urls": result.pages.iter().filter(|page| !page.url.is_empty()).count(),
    })
}

fn written(error: &Error) -> Value {
    let violations = error.field_violations().iter().map(|bad| json!([bad.field, bad.description]));
    let quota = error.quota_violations().iter().map(|limit| json!([limit.subject, limit.description]));
    json!({
        "kind": match error.kind() {
            Kind::BudgetExhausted => "Throttled".to_owned(), // in other languages it is one of these
            kind => format!("{kind:?}"),
        },
        "code": code(error.code()),
        "reason": error.reason(),
        "retry": match error.retry() {
            Retry::Now => "now",
            Retry::Later => "later",
            Retry::Never | Retry::Unspecified => "never",
        },
        "quota": quota.collect::<Vec<_>>(),
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
