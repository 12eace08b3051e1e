//! Documents of this machine into buckets, and pages out of them, by addresses that the gateway signs.

mod download;
mod http;
mod manifest;
mod names;
mod preview;
mod upload;

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;

use crate::client::Client;
use crate::error::Error;
use crate::v1::PreviewJob;

pub use download::{Download, Progress};
pub(crate) use http::Http;
pub use preview::{Preview, Previewed};
pub use upload::Upload;

type Task<T> = Pin<Box<dyn Future<Output = Result<T, Error>> + Send>>;

impl Client {
    /// From a document of this machine to page images in `directory`: uploads the document, creates a job, follows it to
    /// its end and downloads its pages. Await it; what it may do otherwise is said before:
    ///
    /// ```no_run
    /// # async fn run(client: docpreview_client::Client) -> Result<(), docpreview_client::Error> {
    /// # let bucket = "docs-1250000000";
    /// let made = client.preview("slides.pptx", bucket, "pages").on_job(|job| println!("{:?}", job.state())).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// The directory is made, and it is checked that it can be written to, before anything is sent. A job that the cloud
    /// could not convert is no error: see [`Previewed::job`].
    ///
    /// Errors before there is a job are those of [`Client::upload`] and [`Client::create`]. After that all are
    /// `PreviewUnfinished`, with [`Error::job`]: go on with [`Client::wait`] or [`Client::get`], and then
    /// [`Client::download`]. To repeat the whole, also after its future was dropped, set `request_id`
    /// ([`Preview::request`]): it stays one job.
    pub fn preview(
        &self,
        file: impl Into<PathBuf>,
        bucket: impl Into<String>,
        directory: impl Into<PathBuf>,
    ) -> Preview {
        Preview::new(self.clone(), file.into(), bucket.into(), directory.into())
    }

    /// Uploads a document of this machine: up to four parts at a time go straight to the cloud. Await it. What is not
    /// complete, because of an error or because the future was dropped, is aborted.
    ///
    /// `InvalidRequest`: the file is empty. `FailedPrecondition`: it cannot be read, it changed meanwhile, or the cloud refused a part. `PermissionDenied`: the policy does not
    /// let the caller upload this. `Unavailable`: the cloud or the gateway cannot be reached.
    pub fn upload(&self, file: impl Into<PathBuf>, bucket: impl Into<String>) -> Upload {
        Upload::new(self.clone(), file.into(), bucket.into())
    }

    /// Downloads the pages of a job in `STATE_SUCCESS` into a directory, which is made when it is missing. Await it: it
    /// gives the files in the order of the document, `page-0001.jpg` and so on, `sheet-01-page-001.jpg` of a
    /// spreadsheet, `document.pdf` of a target PDF.
    ///
    /// Called again after it was broken off, it goes on where it was: what has been fetched is noted in
    /// `.docpreview.json` in the directory. Pages of another job that are noted there are deleted.
    ///
    /// `FailedPrecondition`: the job has no pages, or a file cannot be written. `PermissionDenied`: the gateway gives
    /// the caller no addresses, or the cloud refused them. `Unavailable`: the cloud or the gateway cannot be reached, or,
    /// after repeats, something on the way sent what is no page: nothing, another type, or more than it tells (than 1 GiB,
    /// where it tells no length). Only one download at a time may go to a directory.
    pub fn download(&self, job: &PreviewJob, directory: impl Into<PathBuf>) -> Download {
        Download::new(self.clone(), job.clone(), directory.into())
    }

    fn http(&self) -> &Http {
        self.caller.core.http.get_or_init(Http::new)
    }
}
