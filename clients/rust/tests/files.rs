//! Uploads, downloads and previews, over real sockets: a gateway and a storage that answer as each test says.

#[allow(dead_code)] // each test uses a part of it
mod gateway;
mod storage;

use std::fs;
use std::future::IntoFuture;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use docpreview_client::v1::preview_job::State;
use docpreview_client::v1::{self, Page, PreviewJob, PreviewResult, UploadPart};
use docpreview_client::{Client, Kind, Progress};
use tonic::Code;

use gateway::{Answer, End, Gateway, error};
use storage::{Reply, Storage};

/// An empty folder of the test's own.
fn folder(test: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(test);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    folder
}

fn file(folder: &Path, content: &[u8]) -> PathBuf {
    let path = folder.join("Slides.PPTX");
    fs::write(&path, content).unwrap();
    path
}

fn client(gateway: &Gateway) -> Client {
    Client::builder(gateway.target()).build().unwrap()
}

/// An upload of parts of five bytes.
fn upload(storage: &Storage, token: &str, parts: &[i64]) -> Answer {
    let part = |(index, length): (usize, &i64)| UploadPart {
        url: storage.url(&format!("{token}/{index}")),
        headers: [("host", storage.host()), ("content-length", length.to_string()), ("x-cos-acl", "private".into())]
            .map(|(name, value)| (name.to_owned(), value))
            .into(),
        offset: 5 * i64::try_from(index).unwrap(),
        length: *length,
    };
    let parts = parts.iter().enumerate().map(part).collect();
    Answer::Upload(v1::Upload { upload_token: token.into(), parts, ..Default::default() })
}

fn uploaded() -> Answer {
    let object = v1::UploadedObject { bucket: "b-1".into(), object: "in/1.pptx".into(), ..Default::default() };
    Answer::Uploaded(object)
}

/// The parts of a document are put with their headers, and its object is made of their `ETag`s in their order.
#[tokio::test]
async fn upload_in_parts() {
    let storage = Storage::start(|asked| Reply::etag(&format!("\"{}\"", asked.line.rsplit('/').next().unwrap()))).await;
    let gateway = Gateway::start([upload(&storage, "one", &[5, 5, 2]), uploaded()]).await;
    let path = file(&folder("upload_in_parts"), b"firstotherxy");
    let object = client(&gateway).upload(path, "b-1").content_type("text/x").await.unwrap();
    assert_eq!(object.object, "in/1.pptx");
    let mut put = storage.seen();
    put.sort_by_key(|asked| asked.line.clone());
    assert_eq!(put.iter().map(|asked| &asked.content[..]).collect::<Vec<_>>(), [&b"first"[..], b"other", b"xy"]);
    for asked in &put {
        let mut names: Vec<_> = asked.headers.keys().map(String::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["content-length", "host", "x-cos-acl"], "nothing else is signed");
    }
    let calls = gateway.seen();
    for part in ["object: \"in/${UploadId}.pptx\"", "content_length: 12", "content_type: \"text/x\""] {
        assert!(calls[0].message.contains(part), "{}", calls[0].message);
    }
    assert!(calls[0].message.contains(&format!("{:?}", md5::compute("firstotherxy").to_vec())), "{}", calls[0].message);
    assert!(calls[1].message.contains(r#"["\"0\"", "\"1\"", "\"2\""]"#), "{}", calls[1].message);
}

/// A part that the storage cannot take now is put again.
#[tokio::test]
async fn upload_that_is_repeated() {
    let storage = Storage::start(|asked| match asked.before {
        0 => Reply::of(503),
        1 => Reply::of(429),
        _ => Reply::etag("e"),
    })
    .await;
    let gateway = Gateway::start([upload(&storage, "one", &[4]), uploaded()]).await;
    client(&gateway).upload(file(&folder("upload_that_is_repeated"), b"text"), "b-1").await.unwrap();
    assert_eq!(storage.seen().len(), 3);
}

/// A document that is there already, put by an attempt whose reply was lost, is completed with its MD5 as the `ETag`.
#[tokio::test]
async fn upload_that_is_there_already() {
    for lost in [1, 0] {
        let storage = Storage::start(move |asked| match asked.before {
            before if before < lost => Reply { is_lost: true, ..Reply::default() },
            _ => Reply::of(409),
        })
        .await;
        let gateway = Gateway::start([upload(&storage, "one", &[4]), uploaded()]).await;
        client(&gateway).upload(file(&folder("upload_that_is_there_already"), b"text"), "b-1").await.unwrap();
        assert_eq!(storage.seen().len(), lost + 1);
        let etag = format!("etags: [\"\\\"{:x}\\\"\"]", md5::compute("text"));
        assert!(gateway.seen()[1].message.contains(&etag), "{}", gateway.seen()[1].message);
    }
}

/// An object of another upload is the gateway's error; of one part of several the MD5 is no `ETag`.
#[tokio::test]
async fn upload_over_another_object() {
    let storage = Storage::start(|_| Reply::of(409)).await;
    let refused = Answer::Fails(error(Code::FailedPrecondition, "UPLOAD_INCOMPLETE", None));
    let gateway = Gateway::start([upload(&storage, "one", &[4]), refused, Answer::Aborted]).await;
    let path = file(&folder("upload_over_another_object"), b"texts");
    let failure = client(&gateway).upload(&path, "b-1").await.unwrap_err();
    assert_eq!((failure.kind(), failure.reason()), (Kind::FailedPrecondition, "UPLOAD_INCOMPLETE"));
    assert_eq!(gateway.seen().len(), 3);
    let gateway = Gateway::start([upload(&storage, "two", &[4, 0]), Answer::Aborted]).await;
    let failure = client(&gateway).upload(&path, "b-1").await.unwrap_err();
    assert_eq!((failure.kind(), failure.reason()), (Kind::FailedPrecondition, ""));
}

/// A part is put four times at most; then the upload is aborted.
#[tokio::test]
async fn upload_that_keeps_failing() {
    let storage = Storage::start(|_| Reply::of(500)).await;
    let gateway = Gateway::start([upload(&storage, "one", &[4]), Answer::Aborted]).await;
    let path = file(&folder("upload_that_keeps_failing"), b"text");
    let failure = client(&gateway).upload(path, "b-1").await.unwrap_err();
    assert_eq!(failure.kind(), Kind::Unavailable);
    assert_eq!(storage.seen().len(), 4);
    assert!(gateway.seen()[1].message.contains("AbortUploadRequest { upload_token: \"one\" }"));
}

/// Where the addresses are refused, it begins again, once. What is told of it has no address.
#[tokio::test]
async fn upload_whose_addresses_expire() {
    let path = file(&folder("upload_whose_addresses_expire"), b"text");
    for (refused, succeeds) in [(1, true), (2, false)] {
        let count = AtomicUsize::new(0);
        let storage = Storage::start(move |_| match count.fetch_add(1, Ordering::Relaxed) {
            times if times < refused => Reply { content: b"<Code>AccessDenied</Code>".into(), ..Reply::of(403) },
            _ => Reply::etag("e"),
        })
        .await;
        let (one, two) = (upload(&storage, "one", &[4]), upload(&storage, "two", &[4]));
        let end = if succeeds { uploaded() } else { Answer::Aborted };
        let gateway = Gateway::start([one, Answer::Aborted, two, end]).await;
        let outcome = client(&gateway).upload(&path, "b-1").await;
        assert_eq!(storage.lines(), ["PUT /one/0", "PUT /two/0"]);
        assert_eq!(gateway.seen().len(), 4);
        if let Err(failure) = &outcome {
            assert_eq!(failure.kind(), Kind::PermissionDenied);
            assert!(failure.message().ends_with("answered 403 AccessDenied"), "{failure}");
            assert!(!format!("{failure} {failure:?}").contains("secret"), "{failure:?}");
        }
        assert_eq!(outcome.is_ok(), succeeds);
    }
}

/// An upload whose future is dropped is aborted.
#[tokio::test]
async fn upload_that_is_dropped() {
    let storage = Storage::start(|_| Reply::of(503)).await;
    let gateway = Gateway::start([upload(&storage, "one", &[4]), Answer::Aborted]).await;
    let path = file(&folder("upload_that_is_dropped"), b"text");
    let client = client(&gateway);
    let task = tokio::spawn(client.upload(path, "b-1").into_future());
    while storage.seen().is_empty() {
        tokio::task::yield_now().await;
    }
    task.abort();
    while gateway.seen().len() < 2 {
        tokio::task::yield_now().await;
    }
    assert!(gateway.seen()[1].message.starts_with("AbortUploadRequest"));
}

/// A file that is not there, or is empty, is no upload: the error names it.
#[tokio::test]
async fn upload_of_no_document() {
    let gateway = Gateway::start([]).await;
    let folder = folder("upload_of_no_document");
    for (path, why) in [(folder.join("none.pdf"), "No such file"), (file(&folder, b""), "is empty")] {
        let failure = client(&gateway).upload(&path, "b-1").await.unwrap_err();
        assert_eq!(failure.kind(), Kind::FailedPrecondition);
        let message = failure.message();
        assert!(message.contains(path.to_str().unwrap()) && message.contains(why), "{message}");
    }
    assert!(gateway.seen().is_empty());
}

/// A job with a page for each of these addresses.
fn job(id: &str, urls: &[String]) -> PreviewJob {
    let page = |(index, url): (usize, &String)| Page {
        page_number: i32::try_from(index).unwrap() + 1,
        object: format!("../{index}.jpg"),
        url: url.clone(),
        ..Default::default()
    };
    let pages = urls.iter().enumerate().map(page).collect();
    let result = Some(PreviewResult { pages, ..Default::default() });
    PreviewJob { bucket: "b-1".into(), job_id: id.into(), state: State::Success.into(), result, ..Default::default() }
}

fn content(paths: &[PathBuf]) -> Vec<String> {
    paths.iter().map(|path| fs::read_to_string(path).unwrap()).collect()
}

fn names(folder: &Path) -> Vec<String> {
    let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
    let mut names: Vec<_> = fs::read_dir(folder).unwrap().map(name).collect();
    names.sort_unstable();
    names
}

/// Pages come in their order, with progress; what is there is not fetched again, and what was cut short is.
#[tokio::test]
async fn download_of_pages() {
    let storage = Storage::start(|asked| Reply::content(asked.line.as_bytes())).await;
    let gateway = Gateway::start([]).await;
    let folder = folder("download_of_pages").join("made/for/it");
    let urls: Vec<_> = (0..20).map(|number| storage.url(&number.to_string())).collect();
    let told = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&told);
    let files = client(&gateway)
        .download(&job("d1", &urls), &folder)
        .on_progress(move |progress| seen.lock().unwrap().push(progress))
        .await
        .unwrap();
    assert_eq!(files[19], folder.join("page-0020.jpg"));
    assert_eq!(content(&files), (0..20).map(|number| format!("GET /{number}")).collect::<Vec<_>>());
    let last = *told.lock().unwrap().last().unwrap();
    let bytes = content(&files).iter().map(|text| text.len() as u64).sum();
    assert_eq!((told.lock().unwrap().len(), last), (20, Progress { pages_done: 20, pages: 20, bytes }));
    let manifest: serde_json::Value =
        serde_json::from_slice(&fs::read(folder.join(".docpreview.json")).unwrap()).unwrap();
    assert_eq!((&manifest["job_id"], &manifest["pages"]["page-0020.jpg"]), (&"d1".into(), &7.into()));

    fs::write(folder.join("page-0002.jpg"), "cut").unwrap();
    assert_eq!(client(&gateway).download(&job("d1", &urls), &folder).await.unwrap(), files);
    assert_eq!(storage.seen().len(), 21);
    assert_eq!(content(&files)[1], "GET /1");
}

/// A page whose transfer breaks goes on where it was, in the same call and in the next.
#[tokio::test]
async fn download_that_breaks() {
    const PAGE: &[u8] = b"0123456789";
    let storage = Storage::start(|asked| match asked.headers.get("range").map(String::as_str) {
        None => Reply { breaks_after: Some(4), ..Reply::content(PAGE) },
        Some("bytes=4-") if asked.before < 5 => Reply::of(500),
        Some("bytes=4-") => Reply {
            headers: vec![("content-range", "bytes 4-9/10".into())],
            content: PAGE[4..].to_owned(),
            ..Reply::of(206)
        },
        Some(other) => panic!("{other}"),
    })
    .await;
    let gateway = Gateway::start([]).await;
    let folder = folder("download_that_breaks");
    let one = job("d1", &[storage.url("page")]);
    let failure = client(&gateway).download(&one, &folder).await.unwrap_err();
    assert_eq!(failure.kind(), Kind::Unavailable);
    assert!(failure.message().starts_with("page-0001.jpg: "), "{failure}");
    assert_eq!(names(&folder), [".docpreview.json", "page-0001.jpg.part"]);
    assert_eq!(content(&client(&gateway).download(&one, &folder).await.unwrap()), ["0123456789"]);
    assert_eq!(names(&folder), [".docpreview.json", "page-0001.jpg"]);
}

/// Addresses that have expired, or that the job does not have, are asked for.
#[tokio::test]
async fn download_with_expired_addresses() {
    let storage =
        Storage::start(|asked| if asked.line.contains("old") { Reply::of(403) } else { Reply::content(b"page") }).await;
    let (old, fresh) = ([storage.url("old")], [storage.url("fresh")]);
    for given in [old.clone(), [String::new()]] {
        let gateway = Gateway::start([Answer::job(job("d1", &fresh))]).await;
        let folder = folder("download_with_expired_addresses");
        let files = client(&gateway).download(&job("d1", &given), &folder).await.unwrap();
        assert_eq!(content(&files), ["page"]);
        assert!(gateway.seen()[0].message.contains("seconds: 600"), "{:?}", gateway.seen());
    }
    let gateway = Gateway::always(job("d1", &old)).await;
    let failure = client(&gateway).download(&job("d1", &old), folder("refused")).await.unwrap_err();
    assert_eq!(failure.kind(), Kind::PermissionDenied);
    assert!(!format!("{failure} {failure:?}").contains("secret"), "{failure:?}");
    let gateway = Gateway::always(job("d1", &[String::new()])).await;
    let failure = client(&gateway).download(&job("d1", &old), folder("refused")).await.unwrap_err();
    assert!(failure.message().contains("gives no address"), "{failure}");
}

/// Pages of another job are deleted, with what there is of them in part; other files are left alone, whatever is noted.
#[tokio::test]
async fn download_over_another_job() {
    let storage = Storage::start(|_| Reply::content(b"page")).await;
    let gateway = Gateway::start([]).await;
    let folder = folder("download_over_another_job");
    let (one, two) = (storage.url("1"), storage.url("2"));
    client(&gateway).download(&job("d1", &[one.clone(), two]), &folder).await.unwrap();
    let outside = folder.with_extension("txt");
    for kept in [folder.join("notes.txt"), outside.clone()] {
        fs::write(kept, "mine").unwrap();
    }
    fs::write(folder.join("page-0001.jpg.part"), "of the other job").unwrap();
    let noted = r#"{"job_id": "d1", "pages": {"page-0001.jpg": 4, "page-0002.jpg": 4, "notes.txt": 4,
        "../download_over_another_job.txt": 4}}"#;
    fs::write(folder.join(".docpreview.json"), noted).unwrap();
    let files = client(&gateway).download(&job("d2", &[one]), &folder).await.unwrap();
    assert_eq!(content(&files), ["page"]);
    assert_eq!(names(&folder), [".docpreview.json", "notes.txt", "page-0001.jpg"]);
    assert!(outside.exists());
}

/// A job that has not succeeded has no pages; a folder that cannot be is named.
#[tokio::test]
async fn download_of_nothing() {
    let gateway = Gateway::start([]).await;
    let running = PreviewJob { state: State::Running.into(), ..job("d1", &[]) };
    let failure = client(&gateway).download(&running, folder("download_of_nothing")).await.unwrap_err();
    assert_eq!((failure.kind(), failure.code()), (Kind::FailedPrecondition, Code::FailedPrecondition));
    assert_eq!(failure.message(), "job d1 is STATE_RUNNING: no pages");
}

/// One call goes from a document to page images.
#[tokio::test]
async fn preview_of_a_document() {
    let storage =
        Storage::start(|asked| if asked.line.starts_with("PUT") { Reply::etag("e") } else { Reply::content(b"page") })
            .await;
    let done = job("d1", &[storage.url("page")]);
    let begun = PreviewJob { state: State::Submitted.into(), result: None, ..done.clone() };
    let gateway = Gateway::start([
        upload(&storage, "one", &[4]),
        uploaded(),
        Answer::job(begun),
        Answer::Stream(vec![done.clone()], End::Ok),
    ])
    .await;
    let folder = folder("preview_of_a_document");
    let states = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&states);
    let made = client(&gateway)
        .preview(file(&folder, b"text"), "b-1", folder.join("pages"))
        .on_job(move |job| seen.lock().unwrap().push(job.state()))
        .await
        .unwrap();
    assert_eq!((made.job, content(&made.files)), (done, vec!["page".to_owned()]));
    assert_eq!(*states.lock().unwrap(), [State::Submitted, State::Success]);
    let create = &gateway.seen()[2].message;
    for part in ["input_object: \"in/1.pptx\"", "object: \"out/${RequestToken}/page-${Number}.jpg\""] {
        assert!(create.contains(part), "{create}");
    }
}

/// A document that the cloud cannot convert has no files, and its job says why.
#[tokio::test]
async fn preview_that_fails() {
    let storage = Storage::start(|_| Reply::etag("e")).await;
    let failed = PreviewJob { state: State::Failed.into(), result: None, ..job("d1", &[]) };
    let answers = [upload(&storage, "one", &[4]), uploaded(), Answer::job(failed.clone())];
    let gateway = Gateway::start(answers.into_iter().chain([Answer::Stream(Vec::new(), End::Ok)])).await;
    let folder = folder("preview_that_fails");
    let made = client(&gateway).preview(file(&folder, b"text"), "b-1", &folder).await.unwrap();
    assert_eq!((made.job, made.files.len()), (failed, 0));
}

/// The directory is looked at before anything is sent; what the gateway refuses is its error.
#[tokio::test]
async fn preview_that_cannot_begin() {
    let refused = error(Code::PermissionDenied, "NOT_PERMITTED", None);
    let gateway = Gateway::start([Answer::Fails(refused)]).await;
    let folder = folder("preview_that_cannot_begin");
    let path = file(&folder, b"text");
    let failure = client(&gateway).preview(&path, "b-1", path.join("pages")).await.unwrap_err();
    assert_eq!(failure.kind(), Kind::FailedPrecondition);
    assert!(gateway.seen().is_empty());
    let failure = client(&gateway).preview(&path, "b-1", &folder).await.unwrap_err();
    assert_eq!(failure.reason(), "NOT_PERMITTED");
}
