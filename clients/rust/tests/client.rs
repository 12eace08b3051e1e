//! What the client promises, over real sockets. What the gateway's own errors become is in the conformance table too.

mod gateway;

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use docpreview_client::v1::preview_job::State;
use docpreview_client::v1::{self, PreviewJob};
use docpreview_client::{Client, Code, Error, Kind, Tls, Watch};
use tonic::Status;

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
    while let Some(job) = watch.next().await? {
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
    assert!(seen.user_agent.starts_with("billing/2 docpreview-client-rust/"), "{seen:?}");
    assert!(seen.timeout.as_deref().unwrap().starts_with('6'), "{seen:?}");
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

/// A create without `request_id` is made once, and its outcome is unknown when the answer is lost.
#[tokio::test]
async fn create_whose_answer_is_lost() {
    let gateway = Gateway::start([Answer::Fails(Status::unavailable("broken"))]).await;
    let failure = client(&gateway).create(v1::CreatePreviewJobRequest::default()).await.unwrap_err();
    assert_eq!(failure.kind(), Kind::OutcomeUnknown);
    assert!(!failure.is_transient());
    assert_eq!(gateway.seen().len(), 1);
}

/// A create with `request_id` is made again, not before the gateway asks for it.
#[tokio::test]
async fn idempotent_create_whose_answer_is_lost() {
    let asked = Duration::from_millis(700);
    let unknown = error(Code::Unknown, "CREATE_OUTCOME_UNKNOWN", Some(asked));
    let broken = Status::unavailable("broken");
    let answers = [Answer::Fails(broken), Answer::Fails(unknown), Answer::job(job(State::Submitted))];
    let gateway = Gateway::start(answers).await;
    let begin = Instant::now();
    assert_eq!(client(&gateway).create(idempotent()).await.unwrap(), job(State::Submitted));
    assert!(begin.elapsed() >= asked);
}

/// When one attempt may have made the job, the failure of a later one does not make that certain.
#[tokio::test]
async fn idempotent_create_that_stays_unknown() {
    let shutting_down = || Answer::Fails(error(Code::Unavailable, "SHUTTING_DOWN", None));
    let unknown = Answer::Fails(Status::unavailable("broken"));
    let gateway = Gateway::start([unknown].into_iter().chain((0..9).map(|_| shutting_down()))).await;
    let failure = client(&gateway).create(idempotent()).await.unwrap_err();
    assert_eq!(failure.kind(), Kind::OutcomeUnknown);
    assert_eq!(gateway.seen().len(), 5);
}

/// A create beyond the budget is not made again, even when the next period begins before the deadline.
#[tokio::test]
async fn create_beyond_the_budget() {
    for (reason, wait, transient) in
        [("PAGE_BUDGET_EXHAUSTED", Some(Duration::from_millis(1)), true), ("PAGE_BUDGET_TOO_SMALL", None, false)]
    {
        let gateway = Gateway::start([Answer::Fails(error(Code::ResourceExhausted, reason, wait))]).await;
        let failure = client(&gateway).create(idempotent()).await.unwrap_err();
        assert_eq!((failure.kind(), failure.reason()), (Kind::BudgetExhausted, reason));
        assert_eq!((failure.retry_delay(), failure.is_transient()), (wait, transient));
        assert_eq!(gateway.seen().len(), 1);
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
        match client.create(v1::CreatePreviewJobRequest::default()).await.unwrap_err() {
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
    assert_eq!(watch.next().await.unwrap(), Some(job(State::Running)));
    assert_eq!(watch.next().await.unwrap_err().kind(), Kind::DeadlineExceeded);
    assert_eq!(watch.next().await.unwrap(), None);
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
        if let Ok(next) = tokio::time::timeout(Duration::from_millis(5 * tries), watch.next()).await {
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
    assert_eq!(watch.next().await.unwrap_err().kind(), Kind::NotFound);
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
    assert_eq!(jobs.next().await.unwrap(), Some(job(State::Running)));
    assert_eq!(gateway.seen().len(), 1);
    assert_eq!(jobs.next().await.unwrap(), Some(job(State::Success)));
    assert_eq!(jobs.next().await.unwrap(), None);
    assert!(gateway.seen()[1].message.contains("page_token: \"two\""));
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
    let sent: Vec<_> = gateway.seen().into_iter().map(|seen| seen.authorization.unwrap()).collect();
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
