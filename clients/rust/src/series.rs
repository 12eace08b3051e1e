//! What comes one after another.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;
use futures_core::stream::BoxStream;
use futures_util::StreamExt;

use crate::error::Error;
use crate::v1::PreviewJob;
use crate::watch::JobEvent;

/// A job, followed until its terminal state: as it is, then after every change.
///
/// A stream ends for reasons that have nothing to do with the job: the gateway is stopping, the stream has been open for
/// long, the connection broke. Since every stream begins with the present state, another is opened and nothing is lost.
/// Slow readers get the latest state, not a backlog. Dropping this ends the stream at the gateway.
pub type Watch = Series<PreviewJob>;

/// Many jobs of a bucket, followed like one until each has ended: each as it is, then every change.
pub type WatchMany = Series<JobEvent>;

/// The jobs of a list, page by page. After an error it asks for the same page again.
pub type Jobs = Series<PreviewJob>;

/// Items that come one after another: a [`Stream`] of results, and [`Series::try_next`] for those who need no more.
pub struct Series<T>(BoxStream<'static, Result<T, Error>>);

impl<T> Series<T> {
    pub(crate) fn new(items: impl Stream<Item = Result<T, Error>> + Send + 'static) -> Self {
        Self(items.fuse().boxed())
    }

    /// The next item; none after the last. It may be cancelled (in `tokio::select!`, for example) and called again;
    /// nothing is lost.
    ///
    /// # Errors
    ///
    /// Those of the method that gave this. After an error of a watch nothing more comes.
    pub async fn try_next(&mut self) -> Result<Option<T>, Error> {
        poll_fn(|context| self.0.as_mut().poll_next(context)).await.transpose()
    }
}

impl<T> Stream for Series<T> {
    type Item = Result<T, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.as_mut().poll_next(context)
    }
}
