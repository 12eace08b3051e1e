//! What the client promises, over real sockets. What the gateway's own errors become is in the conformance table too.

#[allow(dead_code)] // each test uses a part of it
mod gateway;

use std::error::Error as _;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use docpreview_client::v1::preview_job::State;
use docpreview_client::v1::watch_preview_jobs_response::{Event, Heartbeat, JobError};
use docpreview_client::v1::{self, PreviewJob};
use docpreview_client::{Client, Code, Error, JobEvent, Kind, Retry, Tls, Watch};
use futures_util::StreamExt;
use tokio::net::{TcpListener, TcpStream};
use tonic::Status;
use tonic_types::{ErrorDetails, QuotaViolation, StatusExt};

use gateway::{Answer, End, Gateway, error};

fn job(state: State) -> PreviewJob {
    PreviewJob { job_id: "d1".into(), state: state.into(), ..Default::default() }
}

fn client(gateway: &Gateway) -> Client {
    Client::builder(gateway.target()).build().unwrap()
}

fn idempotent() -> v1::CreatePreviewJobRequest {
    v1::CreatePreviewJobRequest { request_id: "1".into(), ..Default::default() }
}

async fn states(watch: &mut Watch) -> Result<Vec<State>, Error> {
    let mut states = Vec::new();
    while let Some(job) = watch.try_next().await? {
        states.push(job.state());
    }
    Ok(states)
}

/// A read that the gateway cannot serve now is made again, not before the gateway asks for it.
#[tokio::test]
async fn read_that_fails_once() {
    let asked = Duration::from_millis(600);
    let away = error(Code::Unavailable, "OVERLOADED", Some(asked));
    let gateway = Gateway::start([Answer::Fails(away), Answer::job(job(State::Running))]).await;
    let begin = Instant::now();
    assert_eq!(client(&gateway).get(v1::GetPreviewJobRequest::default()).await.unwrap(), job(State::Running));
    assert!(begin.elapsed() >= asked);
}

/// It is made four times at most.
#[tokio::test]
async fn read_that_keeps_failing() {
    let gateway = Gateway::start((0..9).map(|_| Answer::Fails(Status::unavailable("away")))).await;
    let failure = client(&gateway).get(v1::GetPreviewJobRequest::default()).await.unwrap_err();
    assert_eq!(failure.kind(), Kind::Unavailable);
    assert_eq!(gateway.seen().len(), 4);
}

/// It is not made again when the gateway says that waiting is useless.
#[tokio::test]
async fn read_with_a_negative_pushback() {
    let mut status = Status::unavailable("away");
    status.metadata_mut().insert("grpc-retry-pushback-ms", "-1".parse().unwrap());
    let gateway = Gateway::start([Answer::Fails(status), Answer::job(job(State::Running))]).await;
    client(&gateway).get(v1::GetPreviewJobRequest::default()).await.unwrap_err();
    assert_eq!(gateway.seen().len(), 1);
}

/// The deadline goes to the gateway, with the client's name.
#[tokio::test]
async fn what_goes_with_a_call() {
    let gateway = Gateway::start([Answer::job(job(State::Running))]).await;
    let client = Client::builder(gateway.target()).user_agent("billing/2").build().unwrap();
    client.within(Duration::from_secs(7)).get(v1::GetPreviewJobRequest::default()).await.unwrap();
    let seen = &gateway.seen()[0];
    assert!(seen.metadata["user-agent"].starts_with("billing/2 docpreview-client-rust/"), "{seen:?}");
    assert!(seen.metadata["grpc-timeout"].starts_with('6'), "{seen:?}");
}

/// An error names code, reason, the wait and the request's id.
#[tokio::test]
async fn facts_of_an_error() {
    let limited = error(Code::ResourceExhausted, "RATE_LIMITED", Some(Duration::from_millis(2500)));
    let gateway = Gateway::start([Answer::Fails(limited)]).await;
    let failure = client(&gateway).get(v1::GetPreviewJobRequest::default()).await.unwrap_err();
    assert_eq!((failure.kind(), failure.code()), (Kind::Throttled, Code::ResourceExhausted));
    assert_eq!(failure.retry_delay(), Some(Duration::from_millis(2500)));
    assert!(failure.is_transient());
    assert_eq!(failure.to_string(), "RATE_LIMITED: as the test says; request id 0123");
    assert_eq!(gateway.seen().len(), 1);
}

/// Where creates are made once they get no `request_id`, and the outcome is unknown when the answer is lost.
#[tokio::test]
async fn create_whose_answer_is_lost() {
    let gateway = Gateway::start([Answer::Fails(Status::unavailable("broken"))]).await;
    let once = client(&gateway).creating_once();
    let failure = once.create(v1::CreatePreviewJobRequest::default()).await.unwrap_err();
    assert_eq!(failure.kind(), Kind::OutcomeUnknown);
    assert!(!failure.is_transient());
    assert_eq!(failure.create_request_id(), "");
    assert!(gateway.seen()[0].message.contains("request_id: \"\""));
    assert_eq!(gateway.seen().len(), 1);
}

/// A create gets a `request_id`, and is made again with it as often as it takes, not before the gateway asks for it.
#[tokio::test]
async fn create_that_is_repeated() {
    let asked = Duration::from_millis(700);
    let unknown = error(Code::Unknown, "CREATE_OUTCOME_UNKNOWN", Some(asked));
    let throttled = |_| Answer::Fails(error(Code::ResourceExhausted, "UPSTREAM_THROTTLED", None));
    let answers = [Answer::Fails(Status::unavailable("broken")), Answer::Fails(unknown)];
    let answers = answers.into_iter().chain((0..4).map(throttled)).chain([Answer::job(job(State::Submitted))]);
    let gateway = Gateway::start(answers).await;
    let begin = Instant::now();
    let request = v1::CreatePreviewJobRequest::default();
    assert_eq!(client(&gateway).create(request).await.unwrap(), job(State::Submitted));
    assert!(begin.elapsed() >= asked);
    let seen = gateway.seen();
    assert_eq!(seen.len(), 7);
    assert!(!seen[0].message.contains("request_id: \"\""), "{}", seen[0].message);
    assert!(seen.iter().all(|one| one.message == seen[0].message));
}

/// A create that is still in flight when the time is up may have made its job: nothing is said to be transient, and the
/// error has the `request_id` to repeat it with.
#[tokio::test]
async fn create_that_is_still_in_flight() {
    let in_flight = error(Code::Unavailable, "CREATE_IN_PROGRESS", Some(Duration::from_secs(9)));
    let gateway = Gateway::start([Answer::Fails(in_flight)]).await;
    let limited = client(&gateway).within(Duration::from_secs(5));
    let failure = limited.create(v1::CreatePreviewJobRequest::default()).await.unwrap_err();
    assert_eq!((failure.kind(), failure.retry()), (Kind::OutcomeUnknown, Retry::Now));
    assert!(!failure.is_transient());
    let id = failure.create_request_id();
    assert_eq!(id.len(), 36);
    assert!(gateway.seen()[0].message.contains(id), "{}", gateway.seen()[0].message);
    assert!(failure.to_string().ends_with(&format!("repeat it with the request_id {id}")), "{failure}");
}

/// When one attempt may have made the job, the failure of a later one does not make that certain.
#[tokio::test]
async fn idempotent_create_that_stays_unknown() {
    let shutting_down = || Answer::Fails(error(Code::Unavailable, "SHUTTING_DOWN", None));
    let unknown = Answer::Fails(Status::unavailable("broken"));
    let gateway = Gateway::start([unknown].into_iter().chain((0..9).map(|_| shutting_down()))).await;
    let limited = client(&gateway).within(Duration::from_secs(2));
    let failure = limited.create(idempotent()).await.unwrap_err();
    assert_eq!(failure.kind(), Kind::OutcomeUnknown);
    assert!(gateway.seen().len() > 1);
}

/// A create beyond the budget is not made again, even when the next period begins before the deadline; the error says
/// when it may be, and which budget it is.
#[tokio::test]
async fn create_beyond_the_budget() {
    for (reason, wait, retry) in [
        ("PAGE_BUDGET_EXHAUSTED", Some(Duration::from_millis(1)), Retry::Later),
        ("PAGE_BUDGET_TOO_SMALL", None, Retry::Never),
        ("A_REASON_OF_TOMORROW", None, Retry::Never),
    ] {
        let mut details = ErrorDetails::with_error_info(reason, "docpreview", []);
        details.set_quota_failure(vec![QuotaViolation::new("caller:shop", "pages per day")]);
        details.set_retry_info(wait);
        let status = Status::with_error_details(Code::ResourceExhausted, "as the test says", details);
        let gateway = Gateway::start([Answer::Fails(status)]).await;
        let failure = client(&gateway).create(idempotent()).await.unwrap_err();
        assert_eq!((failure.reason(), failure.retry(), failure.is_transient()), (reason, retry, false));
        assert_eq!(failure.retry_delay(), wait);
        let quota = &failure.quota_violations()[0];
        assert_eq!((quota.subject.as_str(), quota.description.as_str()), ("caller:shop", "pages per day"));
        assert_eq!(gateway.seen().len(), 1);
    }
}

/// Without a reason the code says whether to repeat.
#[tokio::test]
async fn errors_without_a_reason() {
    for (status, retry) in [
        (Status::deadline_exceeded("late"), Retry::Now),
        (Status::internal("broken"), Retry::Never),
        (Status::resource_exhausted("full"), Retry::Never),
    ] {
        let gateway = Gateway::start([Answer::Fails(status)]).await;
        let failure = client(&gateway).get(v1::GetPreviewJobRequest::default()).await.unwrap_err();
        assert_eq!(failure.retry(), retry, "{failure}");
    }
}

/// A create whose outcome is ambiguous is not made again, and an earlier failure does not hide the reason.
#[tokio::test]
async fn create_that_is_ambiguous() {
    let ambiguous = error(Code::Unknown, "CREATE_OUTCOME_AMBIGUOUS", None);
    let gateway = Gateway::start([Answer::Fails(Status::unavailable("broken")), Answer::Fails(ambiguous)]).await;
    let failure = client(&gateway).create(idempotent()).await.unwrap_err();
    assert_eq!((failure.kind(), failure.reason()), (Kind::OutcomeUnknown, "CREATE_OUTCOME_AMBIGUOUS"));
    assert_eq!(gateway.seen().len(), 2);
}

/// A create that never left this machine is Unavailable, not of unknown outcome.
#[tokio::test]
async fn nobody_at_the_address() {
    let port = Gateway::start([]).await.port;
    let client = Client::builder(format!("127.0.0.1:{port}")).build().unwrap();
    let failure = loop {
        match client.creating_once().create(v1::CreatePreviewJobRequest::default()).await.unwrap_err() {
            // The gateway's port may live on for a moment.
            failure if failure.kind() == Kind::OutcomeUnknown => {}
            failure => break failure,
        }
    };
    assert_eq!((failure.kind(), failure.code()), (Kind::Unavailable, Code::Unavailable), "{failure}");
}

/// A watch goes on over streams that break, and leaves out what did not change.
#[tokio::test]
async fn watch_over_several_streams() {
    let draining = error(Code::Unavailable, "SHUTTING_DOWN", None);
    let gateway = Gateway::start([
        Answer::Stream(vec![job(State::Submitted)], End::Fails(draining)),
        Answer::Fails(Status::unavailable("broken")),
        Answer::Stream(vec![job(State::Submitted), job(State::Running), job(State::Success)], End::Ok),
    ])
    .await;
    let mut watch = client(&gateway).watch(v1::WatchPreviewJobRequest::default());
    let seen = states(&mut watch).await.unwrap();
    assert_eq!(seen, [State::Submitted, State::Running, State::Success]);
}

/// A stream on which nothing comes is replaced.
#[tokio::test]
async fn watch_of_a_dead_stream() {
    let gateway = Gateway::start([
        Answer::Stream(vec![job(State::Running)], End::Hangs),
        Answer::Stream(vec![job(State::Success)], End::Ok),
    ])
    .await;
    let client = Client::builder(gateway.target()).idle_timeout(Duration::from_millis(300)).build().unwrap();
    let mut watch = client.watch(v1::WatchPreviewJobRequest::default());
    assert_eq!(states(&mut watch).await.unwrap(), [State::Running, State::Success]);
}

/// A watch ends at its deadline, over all its streams, and then for good.
#[tokio::test]
async fn watch_until_its_deadline() {
    let gateway = Gateway::start([Answer::Stream(vec![job(State::Running)], End::Hangs)]).await;
    let mut watch = client(&gateway).within(Duration::from_millis(500)).watch(v1::WatchPreviewJobRequest::default());
    assert_eq!(watch.try_next().await.unwrap(), Some(job(State::Running)));
    assert_eq!(watch.try_next().await.unwrap_err().kind(), Kind::DeadlineExceeded);
    assert_eq!(watch.try_next().await.unwrap(), None);
}

/// A watch whose `next` was cancelled is polled again, and has lost nothing.
#[tokio::test]
async fn watch_in_a_select() {
    // A try that is cancelled after its request was sent has used up an answer.
    let answers: [Answer; 50] = std::array::from_fn(|_| Answer::Stream(vec![job(State::Running)], End::Hangs));
    let gateway = Gateway::start(answers).await;
    let mut watch = client(&gateway).watch(v1::WatchPreviewJobRequest::default());
    let mut tries = 0;
    let first = loop {
        tries += 1;
        if let Ok(next) = tokio::time::timeout(Duration::from_millis(5 * tries), watch.try_next()).await {
            break next.unwrap();
        }
    };
    assert_eq!(first, Some(job(State::Running)));
}

/// `create_and_watch` yields the new job first and only changes after it.
#[tokio::test]
async fn create_and_watch() {
    let gateway = Gateway::start([
        Answer::job(job(State::Submitted)),
        Answer::Stream(vec![job(State::Submitted), job(State::Success)], End::Ok),
    ])
    .await;
    let ttl = Some(Duration::from_secs(60));
    let mut watch = client(&gateway).create_and_watch(v1::CreatePreviewJobRequest::default(), ttl).await.unwrap();
    assert_eq!(states(&mut watch).await.unwrap(), [State::Submitted, State::Success]);
    let asked = &gateway.seen()[1].message;
    assert!(asked.contains("job_id: \"d1\"") && asked.contains("seconds: 60"), "{asked}");
}

/// A job that does not exist ends a watch immediately.
#[tokio::test]
async fn watch_of_a_job_that_does_not_exist() {
    let gateway = Gateway::start([Answer::Fails(error(Code::NotFound, "JOB_NOT_FOUND", None))]).await;
    let mut watch = client(&gateway).watch(v1::WatchPreviewJobRequest::default());
    assert_eq!(watch.try_next().await.unwrap_err().kind(), Kind::NotFound);
}

/// A wait is begun again until the job has ended.
#[tokio::test]
async fn wait_over_several_calls() {
    let draining = error(Code::Unavailable, "SHUTTING_DOWN", None);
    let answers = [Answer::job(job(State::Running)), Answer::Fails(draining), Answer::job(job(State::Success))];
    let gateway = Gateway::start(answers).await;
    assert_eq!(client(&gateway).wait(v1::WaitPreviewJobRequest::default()).await.unwrap(), job(State::Success));
}

/// A page is asked for when the jobs of the one before are used up, with its token.
#[tokio::test]
async fn list_of_two_pages() {
    let page = |state, token: &str| {
        Answer::Page(v1::ListPreviewJobsResponse { jobs: vec![job(state)], next_page_token: token.into() })
    };
    let gateway = Gateway::start([page(State::Running, "two"), page(State::Success, "")]).await;
    let mut jobs = client(&gateway).list(v1::ListPreviewJobsRequest::default());
    assert_eq!(jobs.try_next().await.unwrap(), Some(job(State::Running)));
    assert_eq!(gateway.seen().len(), 1);
    assert_eq!(jobs.try_next().await.unwrap(), Some(job(State::Success)));
    assert_eq!(jobs.try_next().await.unwrap(), None);
    assert!(gateway.seen()[0].message.contains("page_size: 100"));
    assert!(gateway.seen()[1].message.contains("page_token: \"two\""));
}

/// What is followed is a stream, as others of Rust.
#[tokio::test]
async fn watch_as_a_stream() {
    let answers = [Answer::Stream(vec![job(State::Running), job(State::Success)], End::Ok)];
    let gateway = Gateway::start(answers).await;
    let watch = client(&gateway).watch(v1::WatchPreviewJobRequest::default());
    let states: Vec<_> = watch.map(|job| job.unwrap().state()).collect().await;
    assert_eq!(states, [State::Running, State::Success]);
}

fn named(id: &str, state: State) -> PreviewJob {
    PreviewJob { job_id: id.into(), state: state.into(), ..Default::default() }
}

/// Many jobs are followed over streams that break: each time those whose end has not come.
#[tokio::test]
async fn many_jobs_over_several_streams() {
    let gone = JobError { job_id: "gone".into(), reason: v1::ErrorReason::JobNotFound.into(), message: String::new() };
    let draining = error(Code::Unavailable, "SHUTTING_DOWN", None);
    let event = |id, state| Event::Job(named(id, state));
    let gateway = Gateway::start([
        Answer::Events(
            vec![event("a", State::Running), Event::Error(gone.clone()), event("b", State::Success)],
            End::Fails(draining),
        ),
        Answer::Events(
            vec![event("a", State::Running), Event::Heartbeat(Heartbeat {}), event("a", State::Success)],
            End::Ok,
        ),
    ])
    .await;
    let job_ids = ["a", "b", "gone", "a"].map(str::to_owned).into();
    let request = v1::WatchPreviewJobsRequest { job_ids, ..Default::default() };
    let events: Vec<_> = client(&gateway).watch_many(request).map(Result::unwrap).collect().await;
    let job = |id, state| JobEvent::Job(named(id, state));
    assert_eq!(
        events,
        [job("a", State::Running), JobEvent::Error(gone), job("b", State::Success), job("a", State::Success)]
    );
    let asked: Vec<_> = gateway.seen().into_iter().map(|seen| seen.message).collect();
    assert!(asked[0].contains("[\"a\", \"b\", \"gone\"]"), "{asked:?}");
    assert!(asked[1].contains("[\"a\"]"), "{asked:?}");
}

/// More jobs than a stream takes are followed in several.
#[tokio::test]
async fn more_jobs_than_one_stream_takes() {
    let done = |_| Answer::Events(Vec::new(), End::Ok);
    let gateway = Gateway::start((0..3).map(done)).await;
    let job_ids = (0..2001).map(|number| format!("d{number}")).collect();
    let request = v1::WatchPreviewJobsRequest { job_ids, ..Default::default() };
    assert_eq!(client(&gateway).watch_many(request).count().await, 0);
    let mut sizes: Vec<_> = gateway.seen().iter().map(|seen| seen.message.matches("\"d").count()).collect();
    sizes.sort_unstable();
    assert_eq!(sizes, [1, 1000, 1000]);
}

/// Watches beyond what one connection takes leave the other calls alone.
#[tokio::test]
async fn more_watches_than_a_connection_takes() {
    let gateway = Gateway::always(job(State::Running)).await;
    let client = client(&gateway).within(Duration::from_secs(20));
    let mut watches: Vec<_> = (0..300).map(|_| client.watch(v1::WatchPreviewJobRequest::default())).collect();
    let firsts = futures_util::future::join_all(watches.iter_mut().map(Watch::try_next)).await;
    assert!(firsts.into_iter().all(|first| first.unwrap() == Some(job(State::Running))));
    client.within(Duration::from_secs(5)).get(v1::GetPreviewJobRequest::default()).await.unwrap();
}

/// A token is asked for at every call.
#[tokio::test]
async fn tokens_that_change() {
    let gateway = Gateway::start([Answer::job(job(State::Running)), Answer::job(job(State::Running))]).await;
    let number = AtomicU32::new(0);
    let token = move || number.fetch_add(1, Ordering::Relaxed).to_string();
    let client = Client::builder(gateway.target()).token(token).build().unwrap();
    for _ in 0..2 {
        client.get(v1::GetPreviewJobRequest::default()).await.unwrap();
    }
    let sent: Vec<_> = gateway.seen().into_iter().map(|seen| seen.metadata["authorization"].clone()).collect();
    assert_eq!(sent, ["Bearer 0", "Bearer 1"]);
}

/// A token never goes over the network in the clear; certificates that are none are refused before any call.
#[tokio::test]
async fn settings_that_are_refused() {
    let token = || "secret".to_owned();
    let clear = Client::builder("gateway:50051").token(token).build().err().unwrap();
    assert_eq!(clear.kind(), Kind::InvalidRequest);
    assert!(!format!("{clear} {clear:?}").contains("secret"));
    let tls = Tls::trusting("").certificate("no certificate", "no key");
    assert!(Client::builder("gateway:50051").tls(tls).token(token).build().is_err());
}

/// All addresses are used in turn, and those that say that they do not serve are left out until they do.
#[tokio::test]
async fn two_addresses() {
    let (one, two) = (Gateway::always(job(State::Running)).await, Gateway::always(job(State::Running)).await);
    let client = Client::builder(format!("ipv4:{},{}", one.target(), two.target())).build().unwrap();
    let call = || client.get(v1::GetPreviewJobRequest::default());
    let calls = || (one.seen().len(), two.seen().len());
    while calls().0 == 0 || calls().1 == 0 {
        call().await.unwrap(); // until both are connected
    }
    let before = calls();
    for _ in 0..4 {
        call().await.unwrap();
    }
    assert_eq!(calls(), (before.0 + 2, before.1 + 2));

    one.set_serving(false).await;
    let mut alone = 0;
    while alone < 4 {
        let before = calls().0;
        call().await.unwrap();
        alone = if calls().0 == before { alone + 1 } else { 0 };
    }
    one.set_serving(true).await;
    let before = calls().0;
    while calls().0 == before {
        call().await.unwrap();
    }
}

/// A gateway that comes back at its address is found again.
#[tokio::test]
async fn gateway_that_is_restarted() {
    let first = Gateway::start([Answer::job(job(State::Running))]).await;
    let client = client(&first).within(Duration::from_secs(20));
    client.get(v1::GetPreviewJobRequest::default()).await.unwrap();
    let port = first.port;
    drop(first);
    let again = Gateway::start_at(port, [Answer::job(job(State::Success))]).await;
    assert_eq!(client.create(idempotent()).await.unwrap(), job(State::Success));
    assert_eq!(again.seen().len(), 1);
}

/// A token source that fails ends a call at once, with its cause; nothing is sent.
#[tokio::test]
async fn token_source_that_fails() {
    let gateway = Gateway::always(job(State::Running)).await;
    let source = || Err::<String, _>(std::io::Error::other("the vault is sealed"));
    let client = Client::builder(gateway.target()).token(source).build().unwrap();
    let failures = [
        client.get(v1::GetPreviewJobRequest::default()).await.unwrap_err(),
        client.create(v1::CreatePreviewJobRequest::default()).await.unwrap_err(),
        client.watch(v1::WatchPreviewJobRequest::default()).try_next().await.unwrap_err(),
    ];
    for failure in failures {
        assert_eq!((failure.kind(), failure.code()), (Kind::Unauthenticated, Code::Unauthenticated));
        assert_eq!(failure.source().unwrap().to_string(), "the vault is sealed");
    }
    assert!(gateway.seen().is_empty());
}

/// One call can bypass the caches, carry metadata of its own, and see that of its reply; an interceptor sees all calls.
#[tokio::test]
async fn metadata_of_calls_and_replies() {
    let gateway = Gateway::always(job(State::Running)).await;
    let intercept = |mut request: tonic::Request<()>| {
        request.metadata_mut().insert("traceparent", "00-1".parse().unwrap());
        Ok(request)
    };
    let client = Client::builder(gateway.target()).interceptor(intercept).build().unwrap();
    let replies = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&replies);
    client
        .no_cache()
        .metadata(|metadata| drop(metadata.insert("x-request-id", "mine".parse().unwrap())))
        .on_reply(move |metadata| seen.lock().unwrap().push(metadata.get("x-cache").cloned()))
        .get(v1::GetPreviewJobRequest::default())
        .await
        .unwrap();
    client.get(v1::GetPreviewJobRequest::default()).await.unwrap();
    let calls = gateway.seen();
    assert_eq!((&*calls[0].metadata["cache-control"], &*calls[0].metadata["x-request-id"]), ("no-cache", "mine"));
    assert!(!calls[1].metadata.contains_key("cache-control") && !calls[1].metadata.contains_key("x-request-id"));
    assert!(calls.iter().all(|call| call.metadata["traceparent"] == "00-1"));
    assert_eq!(*replies.lock().unwrap(), [Some("miss".parse().unwrap())]);
}

/// An interceptor that refuses ends the call.
#[tokio::test]
async fn interceptor_that_refuses() {
    let gateway = Gateway::always(job(State::Running)).await;
    let refuse = |_| Err(Status::failed_precondition("not today"));
    let client = Client::builder(gateway.target()).interceptor(refuse).build().unwrap();
    let failure = client.create(v1::CreatePreviewJobRequest::default()).await.unwrap_err();
    assert_eq!((failure.code(), failure.message()), (Code::FailedPrecondition, "not today"));
    assert!(gateway.seen().is_empty());
}

/// One address for several gateways: new connections go where `to` says.
async fn one_address(to: Arc<Mutex<String>>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let to = to.lock().unwrap().clone();
            tokio::spawn(async move {
                if let Ok(mut gateway) = TcpStream::connect(to).await {
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut gateway).await;
                }
            });
        }
    });
    address
}

/// Behind one address a gateway drains and stops: no call fails.
#[tokio::test]
async fn gateway_that_drains_behind_one_address() {
    let (old, new) = (Gateway::always(job(State::Running)).await, Gateway::always(job(State::Running)).await);
    let to = Arc::new(Mutex::new(old.target()));
    let client = Client::builder(one_address(Arc::clone(&to)).await).build().unwrap();
    let call = || client.get(v1::GetPreviewJobRequest::default());
    call().await.unwrap();
    old.set_serving(false).await;
    let before = old.seen().len();
    for _ in 0..50 {
        call().await.unwrap(); // it still answers, and there is no other yet
    }
    assert_eq!(old.seen().len(), before + 50);
    *to.lock().unwrap() = new.target();
    while new.seen().is_empty() {
        call().await.unwrap();
    }
    drop(old);
    for _ in 0..50 {
        call().await.unwrap();
    }
}

/// A create that a stopping gateway refused is made again by the next one at its address.
#[tokio::test]
async fn create_that_met_a_restart() {
    let old = Gateway::start([Answer::Fails(Status::cancelled("stopping"))]).await;
    let new = Gateway::always(job(State::Submitted)).await;
    let to = Arc::new(Mutex::new(old.target()));
    let client = Client::builder(one_address(Arc::clone(&to)).await).build().unwrap();
    let request = v1::CreatePreviewJobRequest::default();
    let creating = tokio::spawn(async move { client.create(request).await });
    while old.seen().is_empty() {
        tokio::task::yield_now().await;
    }
    *to.lock().unwrap() = new.target();
    drop(old);
    assert_eq!(creating.await.unwrap().unwrap(), job(State::Submitted));
}
