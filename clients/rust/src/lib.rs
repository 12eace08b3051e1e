//! Async client of the docpreview gateway: previews of documents as page images, over gRPC.
//!
//! ```no_run
//! use docpreview_client::{Client, new_request_id, v1};
//!
//! # async fn run() -> Result<(), docpreview_client::Error> {
//! let client = Client::builder("dns:///docpreview:50051").build()?;
//! let mut watch = client
//!     .create_and_watch(
//!         v1::CreatePreviewJobRequest {
//!             bucket: "docs-1250000000".into(),
//!             input_object: "a.pptx".into(),
//!             output: Some(v1::ObjectLocation { object: "previews/a/${Number}.jpg".into(), ..Default::default() }),
//!             request_id: new_request_id(),
//!             ..Default::default()
//!         },
//!         None,
//!     )
//!     .await?;
//! while let Some(job) = watch.next().await? {
//!     println!("{:?}", job.state());
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
mod retry;
mod target;
mod watch;

/// The contract, as it is generated from the .proto files. With the feature `server` its servers too, for a gateway
/// of one's own in a test.
#[allow(missing_docs, clippy::all, clippy::pedantic)]
pub mod v1 {
    include!("generated/docpreview.v1.rs");
}

pub use builder::{Builder, Tls};
pub use client::{Client, Jobs, new_request_id};
pub use error::{Error, FieldViolation, Kind, QuotaViolation};
pub use prost_types;
pub use tonic::Code;
pub use watch::Watch;

/// Whether a job in this state does not change any more.
pub fn is_terminal(state: v1::preview_job::State) -> bool {
    use v1::preview_job::State;
    matches!(state, State::Success | State::Failed | State::Cancelled)
}
