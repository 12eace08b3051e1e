//! The cloud's object storage on a free loopback port: it answers as a test says, request after request.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use http::{Request, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Asked {
    pub line: String,
    pub headers: HashMap<String, String>,
    pub content: Bytes,
    /// How often the same was asked for before.
    pub before: usize,
}

/// What it is answered with.
#[derive(Default)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub content: Vec<u8>,
    /// The connection breaks after so many bytes of the content.
    pub breaks_after: Option<usize>,
    /// The connection breaks before anything is answered.
    pub is_lost: bool,
}

impl Reply {
    pub fn of(status: u16) -> Self {
        Self { status, ..Self::default() }
    }

    pub fn content(content: &[u8]) -> Self {
        Self { status: 200, content: content.to_owned(), ..Self::default() }
    }

    pub fn etag(etag: &str) -> Self {
        Self { status: 200, headers: vec![("etag", etag.to_owned())], ..Self::default() }
    }
}

pub struct Storage {
    port: u16,
    seen: Arc<Mutex<Vec<Asked>>>,
}

impl Storage {
    pub async fn start(answer: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (log, answer) = (Arc::clone(&seen), Arc::new(answer));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (log, answer) = (Arc::clone(&log), Arc::clone(&answer));
                let service = service_fn(move |request: Request<Incoming>| {
                    let (log, answer) = (Arc::clone(&log), Arc::clone(&answer));
                    async move { response(&answer(&asked(request, &log).await)) }
                });
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        Self { port, seen }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}/{path}?q-signature=secret", self.port)
    }

    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub fn seen(&self) -> Vec<Asked> {
        self.seen.lock().unwrap().clone()
    }

    pub fn lines(&self) -> Vec<String> {
        self.seen().into_iter().map(|asked| asked.line).collect()
    }
}

async fn asked(request: Request<Incoming>, log: &Mutex<Vec<Asked>>) -> Asked {
    let line = format!("{} {}", request.method(), request.uri().path());
    let text = |value: &http::HeaderValue| value.to_str().unwrap().to_owned();
    let headers = request.headers().iter().map(|(name, value)| (name.to_string(), text(value))).collect();
    let content = request.into_body().collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let mut log = log.lock().unwrap();
    let before = log.iter().filter(|earlier| earlier.line == line).count();
    let asked = Asked { line, headers, content, before };
    log.push(asked.clone());
    asked
}

type Content = StreamBody<BoxStream<'static, Result<Frame<Bytes>, std::io::Error>>>;

fn response(reply: &Reply) -> std::io::Result<Response<Content>> {
    if reply.is_lost {
        return Err(std::io::Error::other("lost"));
    }
    let mut response = Response::builder().status(reply.status).header("content-length", reply.content.len());
    for (name, value) in &reply.headers {
        response = response.header(*name, value);
    }
    let sent = &reply.content[..reply.breaks_after.unwrap_or(reply.content.len())];
    let content = stream::iter([Ok(Frame::data(Bytes::copy_from_slice(sent)))]);
    let broken = async {
        tokio::task::yield_now().await; // what was sent leaves first
        Err(std::io::Error::other("broken"))
    };
    let content = match reply.breaks_after {
        Some(_) => content.chain(stream::once(broken)).boxed(),
        None => content.boxed(),
    };
    Ok(response.body(StreamBody::new(content)).unwrap())
}
