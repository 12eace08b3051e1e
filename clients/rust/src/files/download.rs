//! The pages of a job into a directory.

use std::collections::{HashMap, VecDeque};
use std::future::IntoFuture;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_RANGE, CONTENT_TYPE, RANGE};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use tokio::fs::{self, OpenOptions};
use tokio::io::AsyncWriteExt;
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tonic::Code;

use super::Task;
use super::http::{Failure, Http, IDLE};
use super::manifest::{Manifest, part, prepare, remove};
use super::names::names;
use crate::client::{Client, wire};
use crate::error::{Error, Kind, innermost};
use crate::retry::Pauses;
use crate::v1::preview_job::State;
use crate::v1::{GetPreviewJobRequest, Page, PreviewJob};

const REPEATS: u32 = 3;
/// The job's own address, the one that was fetched for another page a while ago, and a new one may all have expired.
const RENEWALS: u32 = 3;
/// The manifest is written no more often: a job has up to 5000 pages.
const WRITE_EVERY: Duration = Duration::from_secs(1);

/// How far a download is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Pages that are there.
    pub pages_done: usize,
    /// Pages in all.
    pub pages: usize,
    /// Bytes that this download has fetched.
    pub bytes: u64,
}

pub(crate) type OnProgress = Arc<dyn Fn(Progress) + Send + Sync>;

/// A download to come: [`Client::download`]. Await it.
#[must_use = "nothing is fetched until it is awaited"]
pub struct Download {
    client: Client,
    job: PreviewJob,
    directory: PathBuf,
    at_once: usize,
    ttl: Duration,
    on_progress: Option<OnProgress>,
}

impl Download {
    pub(crate) fn new(client: Client, job: PreviewJob, directory: PathBuf) -> Self {
        Self { client, job, directory, at_once: 8, ttl: Duration::from_secs(600), on_progress: None }
    }

    /// How many pages are fetched at once. Default 8.
    pub fn at_once(mut self, pages: usize) -> Self {
        self.at_once = pages.max(1);
        self
    }

    /// How long the addresses are valid that it asks the gateway for, when the job has none or when they are refused: 1
    /// second to 1 hour. Default 10 minutes.
    pub fn page_url_ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl;
        self
    }

    /// Told after each page.
    pub fn on_progress(mut self, tell: impl Fn(Progress) + Send + Sync + 'static) -> Self {
        self.on_progress = Some(Arc::new(tell));
        self
    }

    async fn run(mut self) -> Result<Vec<PathBuf>, Error> {
        if self.job.state() != State::Success {
            let message = format!("job {} is {}: no pages", self.job.job_id, self.job.state().as_str_name());
            return Err(Error::local(Kind::FailedPrecondition, Code::FailedPrecondition, message));
        }
        prepare(&self.directory).await?;
        let addresses = Addresses::of(&self.client, &self.job, self.ttl)?;
        if self.job.result.as_ref().is_none_or(|result| result.pages.is_empty()) {
            self.job = addresses.ask().await?; // lists leave the pages out
        }
        let result = self.job.result.take().unwrap_or_default();
        let names = names(&result);
        let manifest = Manifest::open(&self.directory, &self.job.job_id).await?;
        let mut missing = VecDeque::new();
        for (name, page) in names.iter().zip(result.pages) {
            if !manifest.has(name).await {
                missing.push_back((name.clone(), page));
            }
        }
        let files = names.iter().map(|name| self.directory.join(name)).collect();
        let (pages, left) = (names.len(), missing.len());
        let fetching = Arc::new(Fetching {
            client: self.client,
            directory: self.directory,
            addresses,
            missing: std::sync::Mutex::new(missing),
            state: Mutex::new(Fetched { manifest, written: Instant::now(), done: pages - left }),
            pages,
            bytes: AtomicU64::new(0),
            on_progress: self.on_progress,
        });
        let mut workers = JoinSet::new();
        for _ in 0..self.at_once.min(left) {
            workers.spawn(Arc::clone(&fetching).work());
        }
        let mut outcome = Ok(files);
        while let Some(ended) = workers.join_next().await {
            if let Err(error) = ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic())) {
                workers.abort_all();
                outcome = Err(error);
                break;
            }
        }
        fetching.state.lock().await.manifest.write().await?;
        outcome
    }
}

impl IntoFuture for Download {
    type Output = Result<Vec<PathBuf>, Error>;
    type IntoFuture = Task<Vec<PathBuf>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}

/// The addresses of a job's pages, which expire.
struct Addresses {
    client: Client,
    request: GetPreviewJobRequest,
    /// By object, those that the gateway gave last.
    fresh: Mutex<HashMap<String, String>>,
}

impl Addresses {
    fn of(client: &Client, job: &PreviewJob, ttl: Duration) -> Result<Self, Error> {
        let page_url_ttl = Some(wire(ttl)?);
        let request = GetPreviewJobRequest { bucket: job.bucket.clone(), job_id: job.job_id.clone(), page_url_ttl };
        Ok(Self { client: client.clone(), request, fresh: Mutex::default() })
    }

    async fn ask(&self) -> Result<PreviewJob, Error> {
        self.client.get(self.request.clone()).await
    }

    /// One that is not the refused one. Many that are refused at once are asked for once.
    async fn other_than(&self, refused: &str, page: &Page) -> Result<String, Error> {
        let mut fresh = self.fresh.lock().await;
        let known = |fresh: &HashMap<String, String>| fresh.get(&page.object).filter(|url| *url != refused).cloned();
        if let Some(url) = known(&fresh) {
            return Ok(url);
        }
        let pages = self.ask().await?.result.unwrap_or_default().pages;
        *fresh = pages.into_iter().map(|page| (page.object, page.url)).collect();
        // The address of a page stays the same for some time: it may be the refused one.
        fresh.get(&page.object).filter(|url| !url.is_empty()).cloned().ok_or_else(|| {
            let message = "the gateway gives no address of this page: its policy, or its configuration of the bucket";
            Error::local(Kind::PermissionDenied, Code::PermissionDenied, message)
        })
    }
}

/// A download, shared by its workers.
struct Fetching {
    client: Client,
    directory: PathBuf,
    addresses: Addresses,
    missing: std::sync::Mutex<VecDeque<(String, Page)>>,
    state: Mutex<Fetched>,
    pages: usize,
    bytes: AtomicU64,
    on_progress: Option<OnProgress>,
}

struct Fetched {
    manifest: Manifest,
    written: Instant,
    done: usize,
}

impl Fetching {
    async fn work(self: Arc<Self>) -> Result<(), Error> {
        while let Some((name, page)) = self.next() {
            let length = self.page(&name, &page).await.map_err(|failure| failure.of(&name))?;
            self.note(&name, length).await?;
        }
        Ok(())
    }

    fn next(&self) -> Option<(String, Page)> {
        self.missing.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    async fn note(&self, name: &str, length: u64) -> Result<(), Error> {
        let mut state = self.state.lock().await;
        state.manifest.note(name, length);
        state.done += 1;
        if state.written.elapsed() >= WRITE_EVERY {
            state.manifest.write().await?;
            state.written = Instant::now();
        }
        if let Some(tell) = &self.on_progress {
            let bytes = self.bytes.load(Ordering::Relaxed);
            tell(Progress { pages_done: state.done, pages: self.pages, bytes });
        }
        Ok(())
    }

    /// Fetches one page; its length.
    async fn page(&self, name: &str, page: &Page) -> Result<u64, Failure> {
        let (path, partial) = (self.directory.join(name), part(&self.directory, name));
        let mut url = page.url.clone();
        if url.is_empty() {
            url = self.addresses.other_than("", page).await.map_err(Failure::Here)?;
        }
        let mut pauses = Pauses::up_to(Duration::from_secs(2));
        let (mut repeats, mut renewed) = (0, 0);
        let mut longest = length(&partial).await;
        loop {
            let mut got = 0;
            let outcome = rest(self.client.http(), &url, &page.content_type, &partial, &mut got).await;
            self.bytes.fetch_add(got, Ordering::Relaxed);
            let failure = match outcome {
                Ok(length) => {
                    fs::rename(&partial, &path).await.map_err(|error| Failure::Here(Error::of_file(&path, error)))?;
                    return Ok(length);
                }
                Err(failure) => failure,
            };
            if failure.is_of_the_address() && renewed < RENEWALS {
                url = self.addresses.other_than(&url, page).await.map_err(Failure::Here)?;
                renewed += 1;
                continue;
            }
            // What brings the page further is not a failure in a row.
            let have = length(&partial).await;
            (repeats, renewed) = if have > longest { (1, 0) } else { (repeats + 1, renewed) };
            longest = longest.max(have);
            if !failure.is_transient() || repeats > REPEATS {
                return Err(failure);
            }
            sleep(pauses.next(None)).await;
        }
    }
}

async fn length(partial: &Path) -> u64 {
    fs::metadata(partial).await.map_or(0, |found| found.len())
}

/// Fetches what is missing of one page into its partial file; the length of the whole.
async fn rest(http: &Http, url: &str, content_type: &str, partial: &Path, got: &mut u64) -> Result<u64, Failure> {
    let have = length(partial).await;
    let mut headers = HeaderMap::new();
    if have > 0 {
        headers.insert(RANGE, HeaderValue::try_from(format!("bytes={have}-")).expect("digits"));
    }
    let answer = match http.send(Method::GET, url, headers, Bytes::new(), IDLE).await {
        Err(Failure::Refused(StatusCode::RANGE_NOT_SATISFIABLE, _)) => {
            // Whole already, or of another length: it is fetched again.
            remove(partial).await.map_err(Failure::Here)?;
            return Err(Failure::Broken("the cloud has no such range".to_owned()));
        }
        // To a page where somebody is to log in, most likely.
        Err(Failure::Refused(status, _)) if status.is_redirection() => {
            return Err(no_page(&format!("sent {}", status.as_u16())));
        }
        answer => answer?,
    };
    if let Some(other) = other_type(answer.headers(), content_type) {
        return Err(no_page(&format!("sent {other:?} and not {content_type}")));
    }
    let resumed = answer.status() == StatusCode::PARTIAL_CONTENT;
    let whole = match (resumed, range(answer.headers())) {
        (true, Some((begin, whole))) if begin == have => Some(whole),
        (true, _) => return Err(Failure::Broken("the cloud sent another range".to_owned())),
        (false, _) => answer.body().size_hint().exact(),
    };
    let begin = if resumed { have } else { 0 };
    let most = whole.unwrap_or(http.longest);
    append(answer, partial, begin, most, http.idle, got).await?;
    let length = begin + *got;
    if length > most {
        remove(partial).await.map_err(Failure::Here)?;
        return Err(no_page(&format!("sent more than {most} bytes")));
    }
    match whole {
        Some(whole) if length != whole => {
            Err(Failure::Broken(format!("it has {length} bytes, and the cloud has {whole}")))
        }
        _ if length == 0 => Err(no_page("sent nothing")),
        _ => Ok(length),
    }
}

/// What is no page comes from a proxy, most likely: the storage has none that is empty or of another type.
fn no_page(what: &str) -> Failure {
    Failure::Broken(format!("something on the way (a proxy?) answered in place of the cloud's storage, and {what}"))
}

/// The type of an answer, where it is not the one that a page has. Both may be unknown.
fn other_type<'a>(headers: &'a HeaderMap, page: &str) -> Option<&'a str> {
    let plain = |text: &'a str| text.split(';').next().unwrap_or_default().trim();
    let answered = plain(headers.get(CONTENT_TYPE)?.to_str().ok()?);
    let page = page.split(';').next().unwrap_or_default().trim();
    (!answered.is_empty() && !page.is_empty() && !answered.eq_ignore_ascii_case(page)).then_some(answered)
}

/// Writes what comes to the end of a file that has `begin` bytes, or of a new one, until it has more than `most`; what has
/// come before it broke is kept.
async fn append(
    answer: Response<Incoming>,
    file: &Path,
    begin: u64,
    most: u64,
    idle: Duration,
    got: &mut u64,
) -> Result<(), Failure> {
    let here = |error| Failure::Here(Error::of_file(file, error));
    let mut options = OpenOptions::new();
    let options = if begin > 0 { options.append(true) } else { options.write(true).create(true).truncate(true) };
    let mut open = options.open(file).await.map_err(here)?;
    let mut body = answer.into_body();
    let broken = loop {
        match timeout(idle, body.frame()).await {
            Ok(None) => break None,
            Ok(Some(Ok(frame))) => {
                let Ok(data) = frame.into_data() else { continue };
                open.write_all(&data).await.map_err(here)?;
                *got += data.len() as u64;
                if begin + *got > most {
                    break None;
                }
            }
            Ok(Some(Err(error))) => break Some(innermost(&error)),
            Err(_) => break Some(format!("nothing came for {idle:?}")),
        }
    };
    open.flush().await.map_err(here)?;
    broken.map_or(Ok(()), |why| Err(Failure::Broken(why)))
}

/// Where a `Content-Range` begins, and the length of the whole.
fn range(headers: &HeaderMap) -> Option<(u64, u64)> {
    let text = headers.get(CONTENT_RANGE)?.to_str().ok()?.strip_prefix("bytes ")?;
    let (range, whole) = text.split_once('/')?;
    let (begin, _) = range.split_once('-')?;
    Some((begin.parse().ok()?, whole.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    /// A server that sends these bytes to whoever comes, and then holds the connection; its address.
    async fn sending(bytes: Vec<u8>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/page", listener.local_addr().unwrap());
        tokio::spawn(async move {
            let mut held = Vec::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                let _ = stream.read(&mut [0; 4096]).await;
                let _ = stream.write_all(&bytes).await; // the client may have enough of them
                held.push(stream);
            }
        });
        url
    }

    async fn fetched(bytes: Vec<u8>, file: &str) -> (Result<u64, Failure>, PathBuf) {
        let mut http = Http::new();
        (http.idle, http.longest) = (Duration::from_millis(300), 1000);
        let partial = std::env::temp_dir().join(format!("docpreview-{}-{file}", std::process::id()));
        let _ = fs::remove_file(&partial).await;
        (rest(&http, &sending(bytes).await, "", &partial, &mut 0).await, partial)
    }

    /// A body whose length nobody tells ends with the longest that a page can have.
    #[tokio::test]
    async fn body_without_end() {
        let bytes = [b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), vec![0; 100_000]].concat();
        let (outcome, partial) = fetched(bytes, "body_without_end").await;
        let failure = outcome.unwrap_err();
        assert!(failure.is_transient());
        assert_eq!(failure.of("page").message(), format!("page: {}", text(&no_page("sent more than 1000 bytes"))));
        assert!(!partial.exists());
    }

    /// A body that gives nothing for some time is broken, and what came of it stays for the next attempt.
    #[tokio::test]
    async fn body_that_stops() {
        let bytes = b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\nhello".to_vec();
        let (outcome, partial) = fetched(bytes, "body_that_stops").await;
        assert_eq!(text(&outcome.unwrap_err()), "nothing came for 300ms");
        assert_eq!(fs::read(&partial).await.unwrap(), b"hello");
        fs::remove_file(&partial).await.unwrap();
    }

    fn text(failure: &Failure) -> &str {
        match failure {
            Failure::Broken(why) => why,
            other => panic!("{other:?}"),
        }
    }
}
