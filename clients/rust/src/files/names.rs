//! Names of the files of pages. They are made of numbers only, never of object keys.

use std::collections::{HashMap, HashSet};

use crate::v1::PreviewResult;
use crate::v1::preview_options::TargetFormat;

/// A name for each page, in their order; they sort in the order of the document.
pub(crate) fn names(result: &PreviewResult) -> Vec<String> {
    let pages = &result.pages;
    if result.target_format() == TargetFormat::Pdf && pages.len() == 1 {
        return vec!["document.pdf".to_owned()];
    }
    let suffixes = pages.iter().map(|page| suffix(&page.content_type, &page.object));
    if result.total_sheet_count > 0 {
        let sheets: Vec<_> = pages.iter().map(|page| (page.page_number, page.picture_number)).collect();
        let numbers = numbers(&sheets);
        let name = |((sheet, _), number, suffix)| format!("sheet-{sheet:02}-page-{number:03}.{suffix}");
        return sheets
            .into_iter()
            .zip(numbers)
            .zip(suffixes)
            .map(|((at, number), suffix)| name((at, number, suffix)))
            .collect();
    }
    let pages: Vec<_> = pages.iter().map(|page| (0, page.page_number)).collect();
    numbers(&pages).into_iter().zip(suffixes).map(|(number, suffix)| format!("page-{number:04}.{suffix}")).collect()
}

/// Whether this can be one of those names: another is never deleted.
pub(crate) fn is_name(text: &str) -> bool {
    let plain = text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte));
    let stem = text.split_once('.').map_or("", |(stem, _)| stem);
    let words: String = stem.chars().filter(|letter| !letter.is_ascii_digit()).collect();
    plain && ["document", "page-", "sheet--page-"].contains(&words.as_str())
}

/// The number of each in its group as it was given; counted where the given ones are not all there and different.
fn numbers(given: &[(i32, i32)]) -> Vec<i32> {
    let mut seen = HashSet::new();
    let mut doubtful = HashSet::new();
    for (group, number) in given {
        if *number < 1 || !seen.insert((group, number)) {
            doubtful.insert(group);
        }
    }
    let mut counts = HashMap::new();
    let number = |(group, number): &(i32, i32)| {
        let count = counts.entry(*group).or_insert(0);
        *count += 1;
        if doubtful.contains(group) { *count } else { *number }
    };
    given.iter().map(number).collect()
}

fn suffix(content_type: &str, object: &str) -> String {
    match content_type {
        "image/jpeg" => "jpg".to_owned(),
        "image/png" => "png".to_owned(),
        "application/pdf" => "pdf".to_owned(),
        _ => plain_suffix(object).unwrap_or_else(|| "jpg".to_owned()),
    }
}

/// What follows the last dot of a file's or object's name, in lower case, where it is a usual suffix.
pub(crate) fn plain_suffix(name: &str) -> Option<String> {
    let (_, suffix) = name.rsplit(['/', '\\']).next()?.rsplit_once('.')?;
    let usual = (1..=10).contains(&suffix.len()) && suffix.bytes().all(|byte| byte.is_ascii_alphanumeric());
    usual.then(|| suffix.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::{is_name, names, plain_suffix};
    use crate::v1::preview_options::TargetFormat;
    use crate::v1::{Page, PreviewResult};

    fn result(sheets: i32, pages: &[(i32, i32)]) -> PreviewResult {
        let page = |(page_number, picture_number): &(i32, i32)| Page {
            page_number: *page_number,
            picture_number: *picture_number,
            object: "../../etc/x.PNG".into(),
            ..Default::default()
        };
        PreviewResult { total_sheet_count: sheets, pages: pages.iter().map(page).collect(), ..Default::default() }
    }

    #[test]
    fn pages_are_named_by_their_numbers() {
        assert_eq!(names(&result(0, &[(2, 0), (10001, 0)])), ["page-0002.png", "page-10001.png"]);
        assert_eq!(names(&result(0, &[(1, 0), (1, 0)])), ["page-0001.png", "page-0002.png"]);
    }

    #[test]
    fn pages_of_a_workbook_are_named_by_sheet_and_page() {
        assert_eq!(
            names(&result(2, &[(1, 1), (1, 2), (2, 0), (2, 0)])),
            ["sheet-01-page-001.png", "sheet-01-page-002.png", "sheet-02-page-001.png", "sheet-02-page-002.png"]
        );
    }

    #[test]
    fn a_pdf_is_the_document_and_content_types_decide() {
        let mut one = result(0, &[(1, 0)]);
        one.pages[0].content_type = "image/jpeg".into();
        assert_eq!(names(&one), ["page-0001.jpg"]);
        one.set_target_format(TargetFormat::Pdf);
        assert_eq!(names(&one), ["document.pdf"]);
    }

    #[test]
    fn other_files_are_none_of_ours() {
        for name in ["page-0001.jpg", "sheet-01-page-001.png", "document.pdf"] {
            assert!(is_name(name), "{name}");
        }
        for name in [
            "../page-0001.jpg",
            "page-header.jpg",
            "page-1/../../x",
            "notes.txt",
            "",
            "page-\\x.jpg",
            ".docpreview.json",
        ] {
            assert!(!is_name(name), "{name}");
        }
    }

    #[test]
    fn suffixes_are_of_the_last_part() {
        assert_eq!(plain_suffix("a.b/Slides.PPTX").as_deref(), Some("pptx"));
        for name in ["a.b/slides", "slides.", "slides.p p", ""] {
            assert_eq!(plain_suffix(name), None, "{name}");
        }
    }
}
