//! A document of this machine into a bucket.

use std::fs::Metadata;
use std::future::IntoFuture;
use std::io::SeekFrom;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use http::header::ETAG;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use tokio::fs::{self, File};
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio::time::sleep;

use super::Task;
use super::http::{Failure, IDLE, internal, media_type};
use super::names::plain_suffix;
use crate::client::{Client, wire};
use crate::error::Error;
use crate::retry::Pauses;
use crate::v1::{AbortUploadRequest, CompleteUploadRequest, CreateUploadRequest, UploadPart, UploadedObject};

/// The MD5 of what fits into one part is sent; of more there would be nothing that checks it.
const LONGEST_WITH_MD5: u64 = 16 << 20;
const PARTS_AT_ONCE: usize = 4;
const REPEATS: usize = 3;
/// A connection that is slower than this is taken for dead.
const SLOWEST_BYTES_PER_SECOND: u64 = 32 << 10;
/// In a key the gateway replaces it with 32 random digits.
const UPLOAD_ID: &str = "${UploadId}";
/// Bytes that are read at a time.
const CHUNK: usize = 1 << 20;

/// An upload to come: [`Client::upload`]. Await it.
#[derive(Clone)]
#[must_use = "nothing is sent until it is awaited"]
pub struct Upload {
    client: Client,
    pub(super) file: PathBuf,
    request: CreateUploadRequest,
    ttl: Option<Duration>,
    /// Where it is not empty, it makes the `${UploadId}` of the key, together with the content: what is at such a key is this
    /// content, brought by an earlier attempt.
    pub(super) request_id: String,
}

impl Upload {
    pub(crate) fn new(client: Client, file: PathBuf, bucket: String) -> Self {
        let suffix = plain_suffix(&file.to_string_lossy()).map(|suffix| format!(".{suffix}")).unwrap_or_default();
        let request = CreateUploadRequest { bucket, object: format!("in/{UPLOAD_ID}{suffix}"), ..Default::default() };
        Self { client, file, request, ttl: None, request_id: String::new() }
    }

    /// Key of the object; `${UploadId}` in it becomes 32 random digits. Default: `in/${UploadId}` and the file's suffix.
    pub fn object(mut self, object: impl Into<String>) -> Self {
        self.request.object = object.into();
        self
    }

    /// MIME type of the content. Default: the one that belongs to the suffix of the object.
    pub fn content_type(mut self, content_type: impl Into<String>) -> Self {
        self.request.content_type = content_type.into();
        self
    }

    /// How long the addresses are valid that the gateway signs for it, 1 second to 1 hour; where they are refused, it
    /// begins again once with new ones. Default: 15 minutes.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    async fn run(mut self) -> Result<UploadedObject, Error> {
        let here = |error| Error::of_file(&self.file, error);
        let found = fs::metadata(&self.file).await.map_err(here)?;
        if !found.is_file() {
            return Err(Error::invalid(format!("{} is not a regular file", self.file.display())));
        }
        let version = Version::of(&found);
        let length = version.length;
        if length == 0 {
            return Err(Error::invalid(format!("{} is empty", self.file.display())));
        }
        self.request.content_length = length.try_into().unwrap_or(i64::MAX);
        let is_named = !self.request_id.is_empty() && self.request.object.contains(UPLOAD_ID);
        if is_named || length <= LONGEST_WITH_MD5 {
            let md5 = self.md5().await.map_err(here)?;
            if length <= LONGEST_WITH_MD5 {
                self.request.content_md5 = md5.to_vec();
            }
            if is_named {
                self.request.object = self.request.object.replace(UPLOAD_ID, &id_of(&self.request_id, md5));
            }
        }
        self.request.ttl = self.ttl.map(wire).transpose()?;
        let mut parts = None;
        let outcome = match self.once(version, &mut parts).await {
            Err(failure) if failure.is_of_the_address() => self.once(version, &mut parts).await,
            outcome => outcome,
        };
        match outcome.map_err(|failure| failure.of(&self.file.display().to_string())) {
            // Of one part the gateway has compared: it is another content.
            Err(error) if is_named && parts != Some(1) && error.reason() == "OBJECT_EXISTS" => {
                let CreateUploadRequest { bucket, object, content_length, .. } = self.request;
                Ok(UploadedObject { bucket, object, content_length, ..Default::default() })
            }
            outcome => outcome,
        }
    }

    /// Uploads; tells the number of parts, once the upload is begun.
    async fn once(&self, version: Version, parts: &mut Option<usize>) -> Result<UploadedObject, Failure> {
        *parts = None;
        let begun = self.client.create_upload(self.request.clone()).await.map_err(Failure::Here)?;
        *parts = Some(begun.parts.len());
        let mut aborted = Aborted { client: self.client.clone(), upload_token: Some(begun.upload_token.clone()) };
        let md5 = <[u8; 16]>::try_from(&self.request.content_md5[..]).ok().filter(|_| begun.parts.len() == 1);
        let whole = md5.map(|md5| format!("\"{:x}\"", md5::Digest(md5)));
        let puts = stream::iter(begun.parts).map(|part| self.put(part, whole.as_deref()));
        let etags = puts.buffered(PARTS_AT_ONCE).try_collect().await;
        let outcome = match self.is_still(version).await.and(etags) {
            Ok(etags) => {
                let request = CompleteUploadRequest { upload_token: begun.upload_token, etags };
                self.client.complete_upload(request).await.map_err(Failure::Here)
            }
            Err(failure) => Err(failure),
        };
        match outcome {
            Ok(_) => aborted.upload_token = None,
            Err(_) => aborted.now().await,
        }
        outcome
    }

    /// What was put of a file that has changed meanwhile is of no one version of it.
    async fn is_still(&self, before: Version) -> Result<(), Failure> {
        let here = |error| Failure::Here(Error::of_file(&self.file, error));
        if Version::of(&fs::metadata(&self.file).await.map_err(here)?) == before {
            return Ok(());
        }
        Err(here(std::io::Error::other("the file changed while it was uploaded; upload it again")))
    }

    /// Puts one part; its `ETag`.
    ///
    /// `whole` is that of the object when the part is all of it: then a conflict is most likely the content that an
    /// attempt has put whose reply was lost, and `CompleteUpload` tells whether it is.
    async fn put(&self, part: UploadPart, whole: Option<&str>) -> Result<String, Failure> {
        let content = self.content(&part).await.map_err(|error| Failure::Here(Error::of_file(&self.file, error)))?;
        let mut pauses = Pauses::up_to(Duration::from_secs(2));
        for _ in 0..REPEATS {
            match self.put_once(&part, content.clone(), whole).await {
                Err(failure) if failure.is_transient() => sleep(pauses.next(None)).await,
                outcome => return outcome,
            }
        }
        self.put_once(&part, content, whole).await
    }

    async fn put_once(&self, part: &UploadPart, content: Bytes, whole: Option<&str>) -> Result<String, Failure> {
        let headers = headers(part).ok_or_else(|| Failure::Here(internal("the gateway's headers are none")))?;
        let limit = IDLE + Duration::from_secs(content.len() as u64 / SLOWEST_BYTES_PER_SECOND);
        let answer = self.client.http().send(Method::PUT, &part.url, headers, content, limit).await?;
        if media_type(answer.headers()) == "text/html" {
            return Err(Failure::not_of_the_storage("sent text/html"));
        }
        let etag = answer.headers().get(ETAG).and_then(|etag| etag.to_str().ok()).map(str::to_owned);
        match (answer.status(), whole, etag) {
            (StatusCode::OK, _, Some(etag)) => Ok(etag),
            (StatusCode::OK, _, None) => Err(Failure::not_of_the_storage("sent no ETag")),
            (StatusCode::CONFLICT, Some(whole), _) => Ok(whole.to_owned()),
            (status, ..) if status.as_u16() < 400 || status == StatusCode::PROXY_AUTHENTICATION_REQUIRED => {
                Err(Failure::not_of_the_storage(&format!("sent {}", status.as_u16())))
            }
            _ => Err(Failure::refused(answer).await),
        }
    }

    /// Of all of the content.
    async fn md5(&self) -> std::io::Result<[u8; 16]> {
        let mut file = File::open(&self.file).await?;
        let (mut sum, mut chunk) = (md5::Context::new(), vec![0; CHUNK]);
        loop {
            match file.read(&mut chunk).await? {
                0 => return Ok(sum.finalize().0),
                length => sum.consume(&chunk[..length]),
            }
        }
    }

    async fn content(&self, part: &UploadPart) -> std::io::Result<Bytes> {
        let wrong = |_| std::io::Error::other("the gateway's part is none");
        let mut file = File::open(&self.file).await?;
        file.seek(SeekFrom::Start(part.offset.try_into().map_err(wrong)?)).await?;
        let mut content = vec![0; part.length.try_into().map_err(wrong)?];
        file.read_exact(&mut content).await?;
        Ok(content.into())
    }
}

impl IntoFuture for Upload {
    type Output = Result<UploadedObject, Error>;
    type IntoFuture = Task<UploadedObject>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}

/// What tells that a file was changed.
#[derive(Clone, Copy, PartialEq)]
struct Version {
    length: u64,
    /// None where the file system does not have it.
    modified: Option<SystemTime>,
}

impl Version {
    fn of(found: &Metadata) -> Self {
        Self { length: found.len(), modified: found.modified().ok() }
    }
}

/// What takes the place of `${UploadId}` in the key of a content that is uploaded for the create of this `request_id`. It is
/// the same in all clients.
fn id_of(request_id: &str, content_md5: [u8; 16]) -> String {
    format!("{:x}", md5::compute(format!("{}\n{:x}", request_id.to_ascii_lowercase(), md5::Digest(content_md5))))
}

fn headers(part: &UploadPart) -> Option<HeaderMap> {
    let mut headers = HeaderMap::new();
    for (name, value) in &part.headers {
        headers.insert(HeaderName::try_from(name).ok()?, HeaderValue::try_from(value).ok()?);
    }
    Some(headers)
}

/// An upload that is aborted unless it was completed, also when its future is dropped.
struct Aborted {
    client: Client,
    upload_token: Option<String>,
}

impl Aborted {
    async fn now(&mut self) {
        let Some(upload_token) = self.upload_token.clone() else { return };
        // What led here is the error to tell; the cloud deletes what is left over.
        let _ = self.client.abort_upload(AbortUploadRequest { upload_token }).await;
        self.upload_token = None;
    }
}

impl Drop for Aborted {
    fn drop(&mut self) {
        if let (Some(upload_token), Ok(runtime)) = (self.upload_token.take(), tokio::runtime::Handle::try_current()) {
            let client = self.client.clone();
            runtime.spawn(async move { client.abort_upload(AbortUploadRequest { upload_token }).await });
        }
    }
}
