//! Async client of the docpreview gateway: previews of documents as page images, over gRPC.
//!
//! ```no_run
//! # #[cfg(feature = "files")]
//! # async fn run() -> Result<(), docpreview_client::Error> {
//! let client = docpreview_client::Client::builder("dns:///docpreview:50051").build()?;
//! let made = client.preview("slides.pptx", "docs-1250000000", "pages").await?;
//! for page in made.files {
//!     println!("{}", page.display());
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Requests and replies are the messages of [`v1`]; what their fields mean stands there. The client needs a Tokio
//! runtime.
#![warn(missing_docs)]

mod balancer;
mod builder;
mod client;
mod core;
mod endpoints;
mod error;
#[cfg(feature = "files")]
mod files;
mod pool;
mod retry;
mod series;
mod target;
mod watch;

/// The contract, as it is generated from the .proto files. With the feature `server` its servers too, for a gateway
/// of one's own in a test.
#[allow(missing_docs, clippy::all, clippy::pedantic)]
pub mod v1 {
    include!("generated/docpreview.v1.rs");
    include!("generated/docpreview.v1.retry.rs");
}

pub use builder::{Builder, IntoToken, Tls};
pub use client::{Client, new_request_id};
pub use error::{Error, FieldViolation, Kind, QuotaViolation};
#[cfg(feature = "files")]
pub use files::{Download, Preview, Previewed, Progress, Upload};
pub use prost_types;
pub use series::{Jobs, Series, Watch, WatchMany};
pub use tonic;
pub use tonic::Code;
pub use v1::Retry;
pub use watch::JobEvent;

/// Whether a job in this state does not change any more.
pub fn is_terminal(state: v1::preview_job::State) -> bool {
    use v1::preview_job::State;
    matches!(state, State::Success | State::Failed | State::Cancelled)
}
