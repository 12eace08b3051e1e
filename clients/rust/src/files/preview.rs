//! From a document of this machine to page images.

use std::future::IntoFuture;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::download::OnProgress;
use super::manifest::{Manifest, prepare};
use super::names::plain_suffix;
use super::upload::default_object;
use super::{Download, Progress, Task, Upload};
use crate::client::{Client, new_request_id, wire};
use crate::error::Error;
use crate::v1::preview_job::State;
use crate::v1::preview_options::TargetFormat;
use crate::v1::{CreatePreviewJobRequest, CreateUploadRequest, PreviewJob};

const PAGE_URL_TTL: Duration = Duration::from_secs(600);

/// Suffixes of spreadsheets, whose results need `${SheetID}` in their path.
const SPREADSHEETS: [&str; 11] = ["csv", "et", "ets", "ett", "xls", "xlsb", "xlsm", "xlsx", "xlt", "xltm", "xltx"];

/// What a preview made.
#[derive(Clone, Debug)]
pub struct Previewed {
    /// The job at its end. Look at its state: where the cloud could not convert the document, `failure` says why.
    pub job: PreviewJob,
    /// The files of its pages in the order of the document. None when the job is not in `STATE_SUCCESS`.
    pub files: Vec<PathBuf>,
}

type OnJob = Box<dyn Fn(&PreviewJob) + Send + Sync>;

/// A preview to come: [`Client::preview`]. Await it.
#[must_use = "nothing is sent until it is awaited"]
pub struct Preview {
    client: Client,
    upload: Upload,
    has_own_object: bool,
    directory: PathBuf,
    request: CreatePreviewJobRequest,
    on_job: Option<OnJob>,
    on_progress: Option<OnProgress>,
}

impl Preview {
    pub(crate) fn new(client: Client, file: PathBuf, bucket: String, directory: PathBuf) -> Self {
        let upload = Upload::new(client.clone(), file, bucket);
        let request = CreatePreviewJobRequest::default();
        Self { client, upload, has_own_object: false, directory, request, on_job: None, on_progress: None }
    }

    /// Key of the uploaded document, as [`Upload::object`]. Default: `in/`, the `request_id` of the create and the file's
    /// suffix.
    pub fn object(mut self, object: impl Into<String>) -> Self {
        self.has_own_object = true;
        self.upload = self.upload.object(object);
        self
    }

    /// MIME type of the document, as [`Upload::content_type`].
    pub fn content_type(mut self, content_type: impl Into<String>) -> Self {
        self.upload = self.upload.content_type(content_type);
        self
    }

    /// What the job is to be: options, preset, queue, output, `request_id`. Repeated with the same `request_id`
    /// ([`new_request_id`](crate::new_request_id)), of the same file, a preview gives the same job. Its `bucket` and `input_object` are those of the upload. Its
    /// output is, unless it is set, `out/${RequestToken}/page-${Number}.jpg`, or of a spreadsheet
    /// `out/${RequestToken}/sheet-${SheetID}/page-${Number}.jpg`, with the suffix of the target format.
    pub fn request(mut self, request: CreatePreviewJobRequest) -> Self {
        self.request = request;
        self
    }

    /// Told the job as it is made, and after every change.
    pub fn on_job(mut self, tell: impl Fn(&PreviewJob) + Send + Sync + 'static) -> Self {
        self.on_job = Some(Box::new(tell));
        self
    }

    /// Told after each page that was downloaded.
    pub fn on_progress(mut self, tell: impl Fn(Progress) + Send + Sync + 'static) -> Self {
        self.on_progress = Some(Arc::new(tell));
        self
    }

    async fn run(mut self) -> Result<Previewed, Error> {
        prepare(&self.directory).await?;
        if self.request.request_id.is_empty() && !self.client.caller.options.create_once {
            self.request.request_id = new_request_id();
        }
        (self.request.bucket, self.request.input_object) = self.input().await?;
        let object = template(&self.request);
        let output = self.request.output.get_or_insert_default();
        if output.object.is_empty() {
            output.object = object;
        }
        let mut job = self.client.create(self.request.clone()).await?;
        match self.pages(&mut job).await {
            Ok(files) => Ok(Previewed { job, files }),
            Err(cause) => Err(Error::preview_unfinished(job, cause)),
        }
    }

    /// Uploads the document; its bucket and key. A key of the create's `request_id` is the same when the preview is
    /// repeated: what is there already was brought by an earlier attempt.
    async fn input(&mut self) -> Result<(String, String), Error> {
        let is_repeatable = !self.has_own_object && !self.request.request_id.is_empty();
        if is_repeatable {
            self.upload.request.object = default_object(&self.upload.file, &self.request.request_id);
        }
        let CreateUploadRequest { bucket, object, .. } = self.upload.request.clone();
        match self.upload.clone().await {
            Ok(uploaded) => Ok((uploaded.bucket, uploaded.object)),
            Err(error) if is_repeatable && is_there_already(&error) => Ok((bucket, object)),
            Err(error) => Err(error),
        }
    }

    /// Follows the job to its end; the files of its pages. Those of an earlier job go first: this one may fail.
    async fn pages(&self, job: &mut PreviewJob) -> Result<Vec<PathBuf>, Error> {
        Manifest::open(&self.directory, &job.job_id).await?;
        let mut watch = self.client.watch_created(self.request.bucket.clone(), job.clone(), Some(wire(PAGE_URL_TTL)?));
        while let Some(seen) = watch.try_next().await? {
            if let Some(tell) = &self.on_job {
                tell(&seen);
            }
            *job = seen;
        }
        if job.state() != State::Success {
            return Ok(Vec::new());
        }
        let mut download = Download::new(self.client.clone(), job.clone(), self.directory.clone());
        if let Some(tell) = self.on_progress.clone() {
            download = download.on_progress(move |progress| tell(progress));
        }
        download.await
    }
}

impl IntoFuture for Preview {
    type Output = Result<Previewed, Error>;
    type IntoFuture = Task<Previewed>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}

/// Whether an upload was refused because its object is there.
fn is_there_already(error: &Error) -> bool {
    error.reason() == "OBJECT_EXISTS"
}

/// Where the results of a job go that names no place.
fn template(request: &CreatePreviewJobRequest) -> String {
    let options = request.options.clone().unwrap_or_default();
    let source = plain_suffix(&request.input_object).unwrap_or_else(|| options.source_format.clone());
    let sheet = if SPREADSHEETS.contains(&source.as_str()) { "sheet-${SheetID}/" } else { "" };
    let suffix = match options.target_format() {
        TargetFormat::Png => "png",
        TargetFormat::Pdf => "pdf",
        TargetFormat::Jpg | TargetFormat::Unspecified => "jpg",
    };
    format!("out/${{RequestToken}}/{sheet}page-${{Number}}.{suffix}")
}

#[cfg(test)]
mod tests {
    use super::template;
    use crate::v1::preview_options::TargetFormat;
    use crate::v1::{CreatePreviewJobRequest, PreviewOptions};

    fn request(input_object: &str, options: PreviewOptions) -> CreatePreviewJobRequest {
        CreatePreviewJobRequest { input_object: input_object.into(), options: Some(options), ..Default::default() }
    }

    #[test]
    fn results_have_a_place_of_their_own() {
        let slides = template(&request("in/1.pptx", PreviewOptions::default()));
        assert_eq!(slides, "out/${RequestToken}/page-${Number}.jpg");
        let mut options = PreviewOptions { source_format: "xlsx".into(), ..Default::default() };
        options.set_target_format(TargetFormat::Png);
        let sheets = template(&request("in/1", options));
        assert_eq!(sheets, "out/${RequestToken}/sheet-${SheetID}/page-${Number}.png");
    }
}
