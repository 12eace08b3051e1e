package docpreview

import (
	"fmt"
	"path"
	"strings"

	docpreviewv1 "github.com/docpreview/docpreview-gateway/clients/go/docpreview/v1"
)

// fileNames are the names of a job's pages on disk, which sort in their order. They are made from numbers only, not from
// keys of objects, so that no page is written outside of its directory.
func fileNames(result *docpreviewv1.PreviewResult) []string {
	pages := result.GetPages()
	names := make([]string, len(pages))
	numbers := pageNumbers(pages)
	if result.GetTotalSheetCount() > 0 {
		numbers = numbersInSheets(pages)
	}
	for i, page := range pages {
		suffix := pageSuffix(page, result.GetTargetFormat())
		switch {
		case suffix == ".pdf" && len(pages) == 1:
			names[i] = "document.pdf"
		case result.GetTotalSheetCount() > 0:
			names[i] = fmt.Sprintf("sheet-%02d-page-%03d%s", page.GetPageNumber(), numbers[i], suffix)
		default:
			names[i] = fmt.Sprintf("page-%04d%s", numbers[i], suffix)
		}
	}
	return names
}

// pageNumbers are those of the document; the cloud's order where it numbers pages twice or not at all.
func pageNumbers(pages []*docpreviewv1.Page) []int32 {
	numbers, seen := make([]int32, len(pages)), map[int32]bool{}
	usable := true
	for i, page := range pages {
		numbers[i] = page.GetPageNumber()
		usable = usable && numbers[i] > 0 && !seen[numbers[i]]
		seen[numbers[i]] = true
	}
	for i := range numbers {
		if !usable {
			numbers[i] = int32(i + 1)
		}
	}
	return numbers
}

// numbersInSheets are the cloud's, or the order in a sheet where it numbers that sheet's pages twice or not at all.
func numbersInSheets(pages []*docpreviewv1.Page) []int32 {
	sheets := map[int32][]*docpreviewv1.Page{}
	seen, counted := map[[2]int32]bool{}, map[int32]bool{}
	for _, page := range pages {
		sheet, number := page.GetPageNumber(), page.GetPictureNumber()
		counted[sheet] = counted[sheet] || number <= 0 || seen[[2]int32{sheet, number}]
		seen[[2]int32{sheet, number}] = true
	}
	numbers := make([]int32, len(pages))
	for i, page := range pages {
		sheet := page.GetPageNumber()
		sheets[sheet] = append(sheets[sheet], page)
		numbers[i] = page.GetPictureNumber()
		if counted[sheet] {
			numbers[i] = int32(len(sheets[sheet]))
		}
	}
	return numbers
}

var suffixOfType = map[string]string{"image/jpeg": ".jpg", "image/png": ".png", "application/pdf": ".pdf"}

var suffixOfTarget = map[docpreviewv1.PreviewOptions_TargetFormat]string{
	docpreviewv1.PreviewOptions_TARGET_FORMAT_JPG: ".jpg",
	docpreviewv1.PreviewOptions_TARGET_FORMAT_PNG: ".png",
	docpreviewv1.PreviewOptions_TARGET_FORMAT_PDF: ".pdf",
}

func pageSuffix(page *docpreviewv1.Page, target docpreviewv1.PreviewOptions_TargetFormat) string {
	if known := suffixOfType[page.GetContentType()]; known != "" {
		return known
	}
	if suffix := strings.ToLower(path.Ext(page.GetObject())); usualSuffix.MatchString(suffix) {
		return suffix
	}
	if known := suffixOfTarget[target]; known != "" {
		return known
	}
	return ".jpg"
}
