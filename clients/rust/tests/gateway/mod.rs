//! A gateway on a free loopback port that answers as a test says, call after call.

use std::collections::{HashMap, VecDeque};
use std::io::ErrorKind;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use docpreview_client::v1::preview_job_service_server::{PreviewJobService, PreviewJobServiceServer};
use docpreview_client::v1::upload_service_server::{UploadService, UploadServiceServer};
use docpreview_client::v1::watch_preview_jobs_response::Event;
use docpreview_client::v1::{self, PreviewJob, WatchPreviewJobResponse, WatchPreviewJobsResponse};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio_stream::wrappers::TcpListenerStream;
use tokio_stream::{Stream, StreamExt};
use tonic::transport::Server;
use tonic::{Code, Request, Response, Status};
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;
use tonic_types::{ErrorDetails, StatusExt};

/// What a call is answered with.
pub enum Answer {
    Job(Box<PreviewJob>),
    Page(v1::ListPreviewJobsResponse),
    Fails(Status),
    /// Messages of a watch, and then its end.
    Stream(Vec<PreviewJob>, End),
    /// Those of a watch of many jobs.
    Events(Vec<Event>, End),
    Upload(v1::Upload),
    Uploaded(v1::UploadedObject),
    Aborted,
}

impl Answer {
    pub fn job(job: PreviewJob) -> Self {
        Self::Job(Box::new(job))
    }
}

pub enum End {
    Ok,
    Fails(Status),
    Hangs,
}

#[derive(Clone, Default)]
struct Script {
    answers: Arc<Mutex<VecDeque<Answer>>>,
    /// What is answered when nothing is left.
    always: Arc<Mutex<Option<PreviewJob>>>,
    seen: Arc<Mutex<Vec<Seen>>>,
}

/// A call as the gateway got it.
#[derive(Clone, Debug)]
pub struct Seen {
    pub message: String,
    pub metadata: HashMap<String, String>,
}

pub struct Gateway {
    script: Script,
    pub port: u16,
    pub health: HealthReporter,
    /// Its end is that of the gateway with all of its connections.
    runtime: Option<Runtime>,
}

impl Gateway {
    pub async fn start(answers: impl IntoIterator<Item = Answer>) -> Self {
        Self::start_at(0, answers).await
    }

    /// Answers every call with this job.
    pub async fn always(job: PreviewJob) -> Self {
        let gateway = Self::start([]).await;
        *gateway.script.always.lock().unwrap() = Some(job);
        gateway
    }

    pub async fn start_at(port: u16, answers: impl IntoIterator<Item = Answer>) -> Self {
        let script = Script { answers: Arc::new(Mutex::new(answers.into_iter().collect())), ..Script::default() };
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.spawn(bind(port)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (health, health_service) = tonic_health::server::health_reporter();
        health.set_serving::<PreviewJobServiceServer<Script>>().await;
        let server = Server::builder()
            .max_concurrent_streams(Some(100)) // as the gateway
            .add_service(PreviewJobServiceServer::new(script.clone()))
            .add_service(UploadServiceServer::new(script.clone()))
            .add_service(health_service)
            .serve_with_incoming(TcpListenerStream::new(listener));
        runtime.spawn(async move { server.await.unwrap() });
        Self { script, port, health, runtime: Some(runtime) }
    }

    pub fn target(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.script.seen.lock().unwrap().clone()
    }

    pub async fn set_serving(&self, serving: bool) {
        let status = if serving { ServingStatus::Serving } else { ServingStatus::NotServing };
        self.health.set_service_status("docpreview.v1.PreviewJobService", status).await;
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.runtime.take().unwrap().shutdown_background();
    }
}

/// A port that was let go of a moment ago may not be free yet.
async fn bind(port: u16) -> TcpListener {
    loop {
        match TcpListener::bind(("127.0.0.1", port)).await {
            Ok(listener) => return listener,
            Err(error) if error.kind() == ErrorKind::AddrInUse => tokio::task::yield_now().await,
            Err(error) => panic!("{error}"),
        }
    }
}

/// An error as the gateway makes them.
pub fn error(code: Code, reason: &str, retry_delay: Option<Duration>) -> Status {
    let metadata = [("request_id".to_owned(), "0123".to_owned())];
    let mut details = ErrorDetails::with_error_info(reason, "docpreview", metadata);
    if retry_delay.is_some() {
        details.set_retry_info(retry_delay);
    }
    Status::with_error_details(code, "as the test says", details)
}

impl Script {
    fn next<Q: std::fmt::Debug>(&self, request: &Request<Q>) -> Answer {
        let metadata = request.metadata().clone().into_headers();
        let text = |value: &http::HeaderValue| value.to_str().unwrap().to_owned();
        self.seen.lock().unwrap().push(Seen {
            message: format!("{:?}", request.get_ref()),
            metadata: metadata.iter().map(|(name, value)| (name.to_string(), text(value))).collect(),
        });
        let always = || self.always.lock().unwrap().clone().map(Answer::job);
        let nothing = || Answer::Fails(Status::internal("nothing is left"));
        self.answers.lock().unwrap().pop_front().or_else(always).unwrap_or_else(nothing)
    }

    fn job<Q: std::fmt::Debug>(&self, request: &Request<Q>) -> Result<Response<PreviewJob>, Status> {
        match self.next(request) {
            Answer::Job(job) => {
                let mut response = Response::new(*job);
                response.metadata_mut().insert("x-cache", "miss".parse().unwrap());
                Ok(response)
            }
            Answer::Fails(status) => Err(status),
            _ => Err(other()),
        }
    }
}

fn other() -> Status {
    Status::internal("the test has another answer for this call")
}

type Messages<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

fn stream<T: Send + 'static>(messages: Vec<T>, end: End) -> Response<Messages<T>> {
    let messages = tokio_stream::iter(messages).map(Ok);
    Response::new(match end {
        End::Ok => Box::pin(messages),
        End::Fails(status) => Box::pin(messages.chain(tokio_stream::iter([Err(status)]))),
        End::Hangs => Box::pin(messages.chain(tokio_stream::pending())),
    })
}

#[tonic::async_trait]
impl PreviewJobService for Script {
    async fn create_preview_job(
        &self,
        request: Request<v1::CreatePreviewJobRequest>,
    ) -> Result<Response<PreviewJob>, Status> {
        self.job(&request)
    }

    async fn get_preview_job(
        &self,
        request: Request<v1::GetPreviewJobRequest>,
    ) -> Result<Response<PreviewJob>, Status> {
        self.job(&request)
    }

    async fn batch_get_preview_jobs(
        &self,
        _: Request<v1::BatchGetPreviewJobsRequest>,
    ) -> Result<Response<v1::BatchGetPreviewJobsResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn list_preview_jobs(
        &self,
        request: Request<v1::ListPreviewJobsRequest>,
    ) -> Result<Response<v1::ListPreviewJobsResponse>, Status> {
        match self.next(&request) {
            Answer::Page(page) => Ok(Response::new(page)),
            _ => Err(other()),
        }
    }

    async fn wait_preview_job(
        &self,
        request: Request<v1::WaitPreviewJobRequest>,
    ) -> Result<Response<PreviewJob>, Status> {
        self.job(&request)
    }

    type WatchPreviewJobStream = Messages<WatchPreviewJobResponse>;

    async fn watch_preview_job(
        &self,
        request: Request<v1::WatchPreviewJobRequest>,
    ) -> Result<Response<Self::WatchPreviewJobStream>, Status> {
        let (jobs, end) = match self.next(&request) {
            Answer::Stream(jobs, end) => (jobs, end),
            Answer::Job(job) => (vec![*job], End::Hangs),
            Answer::Fails(status) => return Err(status),
            _ => return Err(other()),
        };
        Ok(stream(jobs.into_iter().map(|job| WatchPreviewJobResponse { job: Some(job) }).collect(), end))
    }

    type WatchPreviewJobsStream = Messages<WatchPreviewJobsResponse>;

    async fn watch_preview_jobs(
        &self,
        request: Request<v1::WatchPreviewJobsRequest>,
    ) -> Result<Response<Self::WatchPreviewJobsStream>, Status> {
        match self.next(&request) {
            Answer::Events(events, end) => {
                let message = |event| WatchPreviewJobsResponse { event: Some(event) };
                Ok(stream(events.into_iter().map(message).collect(), end))
            }
            Answer::Fails(status) => Err(status),
            _ => Err(other()),
        }
    }
}

#[tonic::async_trait]
impl UploadService for Script {
    async fn create_upload(&self, request: Request<v1::CreateUploadRequest>) -> Result<Response<v1::Upload>, Status> {
        match self.next(&request) {
            Answer::Upload(upload) => Ok(Response::new(upload)),
            Answer::Fails(status) => Err(status),
            _ => Err(other()),
        }
    }

    async fn complete_upload(
        &self,
        request: Request<v1::CompleteUploadRequest>,
    ) -> Result<Response<v1::UploadedObject>, Status> {
        match self.next(&request) {
            Answer::Uploaded(object) => Ok(Response::new(object)),
            Answer::Fails(status) => Err(status),
            _ => Err(other()),
        }
    }

    async fn abort_upload(
        &self,
        request: Request<v1::AbortUploadRequest>,
    ) -> Result<Response<v1::AbortUploadResponse>, Status> {
        match self.next(&request) {
            Answer::Aborted => Ok(Response::new(v1::AbortUploadResponse {})),
            _ => Err(other()),
        }
    }
}
