//! A document of this machine into a bucket.

use std::future::IntoFuture;
use std::io::SeekFrom;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use tokio::fs::{self, File};
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio::time::sleep;

use super::Task;
use super::http::{Failure, IDLE, internal};
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

/// An upload to come: [`Client::upload`]. Await it.
#[derive(Clone)]
#[must_use = "nothing is sent until it is awaited"]
pub struct Upload {
    client: Client,
    pub(super) file: PathBuf,
    pub(super) request: CreateUploadRequest,
    ttl: Option<Duration>,
}

impl Upload {
    pub(crate) fn new(client: Client, file: PathBuf, bucket: String) -> Self {
        let object = default_object(&file, "${UploadId}");
        Self { client, file, request: CreateUploadRequest { bucket, object, ..Default::default() }, ttl: None }
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
        let version = version(&self.file).await.map_err(here)?;
        let length = version.length;
        if length == 0 {
            return Err(Error::invalid(format!("{} is empty", self.file.display())));
        }
        self.request.content_length = length.try_into().unwrap_or(i64::MAX);
        if length <= LONGEST_WITH_MD5 {
            self.request.content_md5 = md5::compute(fs::read(&self.file).await.map_err(here)?).to_vec();
        }
        self.request.ttl = self.ttl.map(wire).transpose()?;
        match self.once(version).await {
            Err(failure) if failure.is_of_the_address() => self.once(version).await,
            outcome => outcome,
        }
        .map_err(|failure| failure.of(&self.file.display().to_string()))
    }

    async fn once(&self, version: Version) -> Result<UploadedObject, Failure> {
        let begun = self.client.create_upload(self.request.clone()).await.map_err(Failure::Here)?;
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
        if version(&self.file).await.map_err(here)? == before {
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
        let response = match (self.client.http().send(Method::PUT, &part.url, headers, content, limit).await, whole) {
            (Err(Failure::Refused(StatusCode::CONFLICT, _)), Some(etag)) => return Ok(etag.to_owned()),
            (outcome, _) => outcome?,
        };
        let etag = response.headers().get("etag").and_then(|etag| etag.to_str().ok());
        etag.map(str::to_owned).ok_or_else(|| Failure::Broken("the answer has no ETag".to_owned()))
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

async fn version(file: &Path) -> std::io::Result<Version> {
    let found = fs::metadata(file).await?;
    Ok(Version { length: found.len(), modified: found.modified().ok() })
}

/// A key for a file, with its suffix.
pub(super) fn default_object(file: &Path, name: &str) -> String {
    let suffix = plain_suffix(&file.to_string_lossy()).map(|suffix| format!(".{suffix}")).unwrap_or_default();
    format!("in/{name}{suffix}")
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
