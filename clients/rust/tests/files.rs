//! Uploads, downloads and previews, over real sockets: a gateway and a storage that answer as each test says.

#[allow(dead_code)] // each test uses a part of it
mod gateway;
mod storage;

use std::collections::HashMap;
use std::error::Error as _;
use std::fs;
use std::future::IntoFuture;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use docpreview_client::v1::preview_job::State;
use docpreview_client::v1::{self, Page, PreviewJob, PreviewResult, UploadPart};
use docpreview_client::{Client, Error, Kind, Progress, Retry, new_request_id};
use tonic::Code;
use tonic_types::StatusExt as _;

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

/// A file that is not there, or is empty, is no upload: the error names it, and nothing is sent.
#[tokio::test]
async fn upload_of_no_document() {
    let gateway = Gateway::start([]).await;
    let folder = folder("upload_of_no_document");
    let (missing, empty) = (folder.join("none.pdf"), file(&folder, b""));
    let failure = client(&gateway).upload(&missing, "b-1").await.unwrap_err();
    assert_eq!(failure.kind(), Kind::FailedPrecondition);
    assert!(failure.message().starts_with(&format!("{}: No such file", missing.display())), "{failure}");
    let failure = client(&gateway).upload(&empty, "b-1").await.unwrap_err();
    let preview = client(&gateway).preview(&empty, "b-1", &folder).await.unwrap_err();
    for failure in [failure, preview] {
        assert_eq!((failure.kind(), failure.code()), (Kind::InvalidRequest, Code::InvalidArgument));
        assert_eq!(failure.message(), format!("{} is empty", empty.display()));
    }
    assert!(gateway.seen().is_empty());
}

/// A file that is written to while its parts are sent is no object: the upload is aborted. Its length may be the same.
#[tokio::test]
async fn upload_of_a_file_that_changes() {
    for (index, status) in [200, 200, 400].into_iter().enumerate() {
        let path = file(&folder("upload_of_a_file_that_changes"), b"text");
        let changed = path.clone();
        let storage = Storage::start(move |_| {
            let open = fs::File::options().write(true).open(&changed).unwrap();
            if index == 1 {
                open.set_modified(std::time::UNIX_EPOCH).unwrap();
            } else {
                open.set_len(3).unwrap();
            }
            Reply { status, ..Reply::etag("e") }
        })
        .await;
        let gateway = Gateway::start([upload(&storage, "one", &[4]), Answer::Aborted]).await;
        let failure = client(&gateway).upload(&path, "b-1").await.unwrap_err();
        assert_eq!(failure.kind(), Kind::FailedPrecondition);
        assert!(failure.message().contains("changed while it was uploaded"), "{failure}");
        assert!(failure.message().contains(path.to_str().unwrap()), "{failure}");
        let calls = gateway.seen();
        assert_eq!(calls.len(), 2);
        assert!(calls[1].message.starts_with("AbortUploadRequest"), "{}", calls[1].message);
    }
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

/// A job with one page, of a known type.
fn jpeg(storage: &Storage) -> PreviewJob {
    let mut job = job("d1", &[storage.url("page")]);
    job.result.as_mut().unwrap().pages[0].content_type = "image/jpeg".into();
    job
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

/// What is of another type than the page, or empty, was sent by something on the way, and does not become a page.
#[tokio::test]
async fn download_of_what_is_no_page() {
    let gateway = Gateway::start([]).await;
    for (status, content_type, content, why) in [
        (200, "text/html", &b"<html>log in"[..], "sent \"text/html\" and not image/jpeg"),
        (200, "image/jpeg", b"", "sent nothing"),
        (302, "text/html", b"", "sent 302"),
    ] {
        let storage = Storage::start(move |_| Reply {
            status,
            headers: vec![("content-type", content_type.to_owned())],
            ..Reply::content(content)
        })
        .await;
        let folder = folder("download_of_what_is_no_page");
        let failure = client(&gateway).download(&jpeg(&storage), &folder).await.unwrap_err();
        assert!(failure.message().starts_with("page-0001.jpg: something on the way (a proxy?) "), "{failure}");
        assert!(failure.message().ends_with(why), "{failure}");
        assert_eq!(failure.kind(), Kind::Unavailable);
        assert_eq!(storage.seen().len(), 4); // it may have been a short time only
        assert!(!folder.join("page-0001.jpg").exists());
        let manifest = fs::read_to_string(folder.join(".docpreview.json")).unwrap();
        assert!(!manifest.contains("page-0001.jpg"), "{manifest}");
    }
}

/// What is longer than it tells is no page either: nothing of it stays, and it is repeated as often as what breaks.
#[tokio::test]
async fn download_of_too_much() {
    let gateway = Gateway::start([]).await;
    let storage = Storage::start(|_| Reply {
        headers: vec![("content-range", "bytes 0-2/3".to_owned())],
        ..Reply { status: 206, ..Reply::content(b"0123456789") }
    })
    .await;
    let folder = folder("download_of_too_much");
    let failure = client(&gateway).download(&jpeg(&storage), &folder).await.unwrap_err();
    assert!(failure.message().ends_with("and sent more than 3 bytes"), "{failure}");
    assert_eq!((failure.kind(), storage.seen().len()), (Kind::Unavailable, 4));
    assert_eq!(names(&folder), [".docpreview.json"]);
}

/// Types are compared without their parameters and in any case; where one is not known nothing is compared.
#[tokio::test]
async fn download_of_pages_of_their_type() {
    let gateway = Gateway::start([]).await;
    for headers in [vec![("content-type", "IMAGE/JPEG; q=1".to_owned())], Vec::new()] {
        let storage = Storage::start(move |_| Reply { headers: headers.clone(), ..Reply::content(b"page") }).await;
        let files = client(&gateway).download(&jpeg(&storage), folder("download_of_their_type")).await.unwrap();
        assert_eq!(content(&files), ["page"]);
    }
    let other = || Reply { headers: vec![("content-type", "a/b".into())], ..Reply::content(b"page") };
    let storage = Storage::start(move |_| other()).await;
    let untyped = job("d1", &[storage.url("page")]);
    client(&gateway).download(&untyped, folder("download_of_their_type")).await.unwrap();
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

/// A folder with pages of another job, one of them in part, and a file of the user's.
fn folder_of_another_job(test: &str) -> PathBuf {
    let folder = folder(test);
    for name in ["page-0001.jpg", "page-0002.jpg.part", "page-header.jpg.part"] {
        fs::write(folder.join(name), "old").unwrap();
    }
    fs::write(folder.join(".docpreview.json"), r#"{"job_id": "d0", "pages": {"page-0001.jpg": 3}}"#).unwrap();
    folder
}

/// As soon as there is a new job the pages of another are gone: of one that fails, or is not followed, none are left.
#[tokio::test]
async fn preview_over_another_job() {
    let storage = Storage::start(|_| Reply::etag("e")).await;
    let failed = PreviewJob { state: State::Failed.into(), result: None, ..job("d1", &[]) };
    let begun = PreviewJob { state: State::Submitted.into(), ..failed.clone() };
    let lost = Answer::Fails(error(Code::NotFound, "JOB_NOT_FOUND", None));
    for watched in [Answer::Stream(vec![failed], End::Ok), lost] {
        let gateway = Gateway::start([upload(&storage, "one", &[4]), uploaded(), Answer::job(begun.clone()), watched]);
        let gateway = gateway.await;
        let path = file(&folder("preview_over_another_job"), b"text");
        let folder = folder_of_another_job("preview_over_another_job_pages");
        let _ = client(&gateway).preview(path, "b-1", &folder).await;
        assert_eq!(gateway.seen().len(), 4);
        assert_eq!(names(&folder), [".docpreview.json", "page-header.jpg.part"]);
    }
}

/// Before there is a new job the pages of another stay.
#[tokio::test]
async fn preview_that_is_refused_over_another_job() {
    let storage = Storage::start(|_| Reply::etag("e")).await;
    let refused = Answer::Fails(error(Code::ResourceExhausted, "PAGE_BUDGET_EXHAUSTED", None));
    let gateway = Gateway::start([upload(&storage, "one", &[4]), uploaded(), refused]).await;
    let path = file(&folder("preview_that_is_refused"), b"text");
    let folder = folder_of_another_job("preview_that_is_refused_pages");
    let failure = client(&gateway).preview(path, "b-1", &folder).await.unwrap_err();
    assert_eq!((failure.kind(), failure.job()), (Kind::BudgetExhausted, None));
    assert_eq!(names(&folder).len(), 4);
}

/// Once there is a job, whatever fails is an error that nobody repeats, with the job and the cause.
#[tokio::test]
async fn preview_that_is_unfinished() {
    let storage = Storage::start(|asked| match asked.line.as_str() {
        "GET /page" => Reply::content(b"page"),
        "GET /none" => Reply::of(404),
        "GET /away" => Reply::of(503),
        _ => Reply::etag("e"),
    })
    .await;
    let done = |page: &str| job("d1", &[storage.url(page)]);
    let begun = PreviewJob { state: State::Submitted.into(), result: None, ..done("") };
    let lost = Answer::Fails(error(Code::NotFound, "JOB_NOT_FOUND", None));
    for (watched, blocked, cause, last) in [
        (lost, None, (Kind::NotFound, "as the test says"), State::Submitted),
        (Answer::Stream(Vec::new(), End::Hangs), None, (Kind::DeadlineExceeded, "the deadline"), State::Submitted),
        (Answer::Stream(vec![done("none")], End::Ok), None, (Kind::NotFound, "answered 404"), State::Success),
        (Answer::Stream(vec![done("away")], End::Ok), None, (Kind::Unavailable, "answered 503"), State::Success),
        (
            Answer::Stream(vec![done("page")], End::Ok),
            Some("page-0001.jpg/x"),
            (Kind::FailedPrecondition, "page-0001.jpg: "),
            State::Success,
        ),
        (
            Answer::Stream(vec![done("page")], End::Ok),
            Some(".docpreview.json/x"),
            (Kind::FailedPrecondition, ".docpreview.json: "),
            State::Submitted,
        ),
    ] {
        let answers = [upload(&storage, "one", &[4]), uploaded(), Answer::job(begun.clone()), watched];
        let gateway = Gateway::start(answers).await;
        let folder = folder("preview_that_is_unfinished");
        if let Some(blocked) = blocked {
            fs::create_dir_all(folder.join(blocked)).unwrap();
        }
        let client = Client::builder(gateway.target()).watch_timeout(Duration::from_millis(500)).build().unwrap();
        let failure = client.preview(file(&folder, b"text"), "b-1", &folder).await.unwrap_err();
        assert_eq!((failure.kind(), failure.retry()), (Kind::PreviewUnfinished, Retry::Never), "{failure}");
        assert!(!failure.is_transient());
        let made = failure.job().unwrap();
        assert_eq!((made.job_id.as_str(), made.state()), ("d1", last));
        let source = failure.source().unwrap().downcast_ref::<Error>().unwrap();
        assert_eq!(source.kind(), cause.0, "{source}");
        assert!(source.message().contains(cause.1), "{source}");
        let told = format!(
            "job d1 was made and its pages are not all here: {source}; go on with download (Client::wait or Client::get, \
             then Client::download)"
        );
        assert_eq!(failure.message(), told);
        assert!(!format!("{failure:?}").contains("secret"), "{failure}");
    }
}

/// A preview that is repeated with its `request_id` finds the document that it brought before, at the begin of the upload
/// or at its end, and creates the same job.
#[tokio::test]
async fn preview_that_is_repeated() {
    const ID: &str = "6f1c3d6e-54f4-4c36-9a0c-0d8f6c1e7a11";
    let storage =
        Storage::start(|asked| if asked.line.starts_with("PUT") { Reply::of(409) } else { Reply::content(b"page") })
            .await;
    let done = job("d1", &[storage.url("page")]);
    let there = || Answer::Fails(exists());
    for answers in [vec![there()], vec![upload(&storage, "one", &[4]), there(), Answer::Aborted]] {
        let (calls, ends) = (answers.len(), [Answer::job(done.clone()), Answer::Stream(Vec::new(), End::Ok)]);
        let gateway = Gateway::start(answers.into_iter().chain(ends)).await;
        let folder = folder("preview_that_is_repeated");
        let request = v1::CreatePreviewJobRequest { request_id: ID.into(), ..Default::default() };
        let preview = client(&gateway).preview(file(&folder, b"text"), "b-1", folder.join("pages")).request(request);
        assert_eq!(content(&preview.await.unwrap().files), ["page"]);
        let seen = gateway.seen();
        assert!(seen[0].message.contains(&format!("object: \"in/{ID}.pptx\"")), "{}", seen[0].message);
        let create = &seen[calls].message;
        for part in ["bucket: \"b-1\"", &format!("input_object: \"in/{ID}.pptx\""), &format!("request_id: \"{ID}\"")] {
            assert!(create.contains(part), "{create}");
        }
    }
}

/// An object that is there under a key of the user's own, or an upload that is incomplete otherwise, is an error.
#[tokio::test]
async fn preview_of_an_object_of_the_users_own() {
    let folder = folder("preview_of_an_object_of_the_users_own");
    let path = file(&folder, b"text");
    let request = v1::CreatePreviewJobRequest { request_id: new_request_id(), ..Default::default() };
    let gateway = Gateway::start([Answer::Fails(exists())]).await;
    let preview = client(&gateway).preview(&path, "b-1", &folder).request(request.clone()).object("in/mine.pptx");
    assert_eq!(preview.await.unwrap_err().reason(), "OBJECT_EXISTS");
    let incomplete = refusal(Code::FailedPrecondition, "UPLOAD_INCOMPLETE", "an object of this key exists already");
    let gateway = Gateway::start([Answer::Fails(incomplete)]).await;
    let preview = client(&gateway).preview(&path, "b-1", &folder).request(request);
    assert_eq!(preview.await.unwrap_err().reason(), "UPLOAD_INCOMPLETE");
}

/// Without an id the preview makes one, and a create of unknown outcome tells it; where ids are turned off the gateway names
/// the object.
#[tokio::test]
async fn preview_of_unknown_outcome() {
    let storage = Storage::start(|_| Reply::etag("e")).await;
    let unknown = || Answer::Fails(error(Code::Unavailable, "CREATE_OUTCOME_UNKNOWN", Some(Duration::from_secs(60))));
    let folder = folder("preview_of_unknown_outcome");
    let path = file(&folder, b"text");
    let gateway = Gateway::start([upload(&storage, "one", &[4]), uploaded(), unknown()]).await;
    let failure = client(&gateway).preview(&path, "b-1", &folder).await.unwrap_err();
    assert_eq!((failure.kind(), failure.job()), (Kind::OutcomeUnknown, None));
    let id = failure.create_request_id();
    assert_eq!(id.len(), 36, "{id}");
    assert!(failure.to_string().ends_with(&format!("repeat it with the request_id {id}")), "{failure}");
    let seen = gateway.seen();
    assert!(seen[0].message.contains(&format!("object: \"in/{id}.pptx\"")), "{}", seen[0].message);
    assert!(seen[2].message.contains(&format!("request_id: \"{id}\"")), "{}", seen[2].message);

    let gateway = Gateway::start([upload(&storage, "one", &[4]), uploaded(), unknown()]).await;
    let failure = client(&gateway).creating_once().preview(&path, "b-1", &folder).await.unwrap_err();
    assert_eq!(failure.create_request_id(), "");
    let seen = gateway.seen();
    assert!(seen[0].message.contains("object: \"in/${UploadId}.pptx\""), "{}", seen[0].message);
    assert!(seen[2].message.contains("request_id: \"\""), "{}", seen[2].message);
}

fn exists() -> tonic::Status {
    refusal(Code::AlreadyExists, "OBJECT_EXISTS", "an object is in the way")
}

fn refusal(code: Code, reason: &str, sentence: &str) -> tonic::Status {
    let details = tonic_types::ErrorDetails::with_error_info(reason, "docpreview", HashMap::new());
    tonic::Status::with_error_details(code, sentence, details)
}
