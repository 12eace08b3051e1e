//! What has been fetched into a directory: `.docpreview.json`, the same in every client.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde_json::{Map, Value, json};
use tokio::fs;

use super::names::is_name;
use crate::error::Error;

const NAME: &str = ".docpreview.json";
const PART: &str = ".part";

/// Whole pages of one job in a directory, with their lengths.
pub(crate) struct Manifest {
    directory: PathBuf,
    job_id: String,
    pages: BTreeMap<String, u64>,
}

impl Manifest {
    /// That of the job. Pages that are noted of another job are deleted, and so is what has been fetched in part, since
    /// nothing says of which job it is.
    pub(crate) async fn open(directory: &Path, job_id: &str) -> Result<Self, Error> {
        let path = directory.join(NAME);
        let text = match fs::read(&path).await {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(Error::of_file(&path, error)),
        };
        // One that cannot be read notes nothing.
        let noted: Value = serde_json::from_slice(&text).unwrap_or_default();
        let mut manifest = Self { directory: directory.to_owned(), job_id: job_id.to_owned(), pages: lengths(&noted) };
        if noted["job_id"] != job_id {
            for name in manifest.pages.keys() {
                remove(&directory.join(name)).await?;
            }
            remove_parts(directory).await?;
            manifest.pages.clear();
            manifest.write().await?;
        }
        Ok(manifest)
    }

    /// Whether the page is there, whole.
    pub(crate) async fn has(&self, name: &str) -> bool {
        let Some(length) = self.pages.get(name) else { return false };
        fs::metadata(self.directory.join(name)).await.is_ok_and(|found| found.is_file() && found.len() == *length)
    }

    pub(crate) fn note(&mut self, name: &str, length: u64) {
        self.pages.insert(name.to_owned(), length);
    }

    pub(crate) async fn write(&self) -> Result<(), Error> {
        let text = json!({"job_id": self.job_id, "pages": self.pages}).to_string();
        let (path, new) = (self.directory.join(NAME), part(&self.directory, NAME));
        fs::write(&new, text).await.map_err(|error| Error::of_file(&new, error))?;
        fs::rename(&new, &path).await.map_err(|error| Error::of_file(&path, error))
    }
}

/// The directories to which downloads of this process go, by their resolved paths.
static CLAIMED: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

/// Keeps other downloads out of a directory until it is dropped.
pub(crate) struct Claim(PathBuf);

impl Drop for Claim {
    fn drop(&mut self) {
        CLAIMED.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.0);
    }
}

/// Makes the directory, claims it, and finds out whether it can be written to.
pub(crate) async fn prepare(directory: &Path) -> Result<Claim, Error> {
    if directory.as_os_str().is_empty() {
        return Err(Error::invalid("the name of the directory is empty"));
    }
    let here = |error| Error::of_file(directory, error);
    fs::create_dir_all(directory).await.map_err(here)?;
    let resolved = fs::canonicalize(directory).await.map_err(here)?;
    if !CLAIMED.lock().unwrap_or_else(PoisonError::into_inner).insert(resolved.clone()) {
        return Err(Error::invalid(format!("another download goes to {}", directory.display())));
    }
    let claim = Claim(resolved);
    let probe = part(directory, NAME);
    fs::write(&probe, "").await.map_err(|error| Error::of_file(&probe, error))?;
    remove(&probe).await?;
    Ok(claim)
}

/// Where a file is while it is not whole.
pub(crate) fn part(directory: &Path, name: &str) -> PathBuf {
    directory.join(format!("{name}{PART}"))
}

/// Removes what has been fetched in part.
async fn remove_parts(directory: &Path) -> Result<(), Error> {
    let here = |error| Error::of_file(directory, error);
    let mut entries = fs::read_dir(directory).await.map_err(here)?;
    while let Some(entry) = entries.next_entry().await.map_err(here)? {
        let name = entry.file_name();
        if name.to_str().and_then(|name| name.strip_suffix(PART)).is_some_and(is_name) {
            remove(&entry.path()).await?;
        }
    }
    Ok(())
}

/// Removes a file that may not be there.
pub(crate) async fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path).await {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::of_file(path, error)),
        _ => Ok(()),
    }
}

fn lengths(noted: &Value) -> BTreeMap<String, u64> {
    let none = Map::new();
    let pages = noted["pages"].as_object().unwrap_or(&none).iter();
    pages
        .filter(|(name, _)| is_name(name))
        .filter_map(|(name, length)| Some((name.clone(), length.as_u64()?)))
        .collect()
}
