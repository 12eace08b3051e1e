/** Names of downloaded pages. They are made of numbers only, never of object keys, and sort in the order of the pages. */

import { type Page, PreviewOptions_TargetFormat, type PreviewResult } from "./gen/docpreview/v1/preview_job_pb.js";
import { suffixOf } from "./requests.js";

const SUFFIXES: Readonly<Record<string, string>> = {
  "image/jpeg": "jpg",
  "image/png": "png",
  "application/pdf": "pdf",
};

/** What `namesOf` can have made. */
export const PAGE_NAME = /^(page-\d{4,}|sheet-\d{2,}-page-\d{3,}|document)\.[a-z0-9]{1,10}$/;

/** The name of each page, in their order, no two the same. */
export function namesOf(result: PreviewResult): string[] {
  const { pages } = result;
  if (result.targetFormat === PreviewOptions_TargetFormat.PDF && pages.length === 1) {
    return ["document.pdf"];
  }
  const stems = result.totalSheetCount > 0 ? sheetPages(pages) : documentPages(pages);
  return pages.map((page, index) => `${stems[index]}.${suffix(page)}`);
}

function documentPages(pages: readonly Page[]): string[] {
  const numbers = pages.map((page) => page.pageNumber);
  return (usable(numbers) ? numbers : pages.map((_, index) => index + 1)).map((number) => `page-${padded(number, 4)}`);
}

function sheetPages(pages: readonly Page[]): string[] {
  const pictures = new Map<number, number[]>();
  for (const { pageNumber, pictureNumber } of pages) {
    const known = pictures.get(pageNumber);
    known === undefined ? pictures.set(pageNumber, [pictureNumber]) : known.push(pictureNumber);
  }
  const counted = new Map<number, number>();
  return pages.map(({ pageNumber, pictureNumber }) => {
    const count = (counted.get(pageNumber) ?? 0) + 1;
    counted.set(pageNumber, count);
    const number = usable(pictures.get(pageNumber) ?? []) ? pictureNumber : count;
    return `sheet-${padded(pageNumber, 2)}-page-${padded(number, 3)}`;
  });
}

/** Whether each number is there, and there once. */
function usable(numbers: readonly number[]): boolean {
  return numbers.every((number) => number > 0) && new Set(numbers).size === numbers.length;
}

function padded(number: number, digits: number): string {
  return String(number).padStart(digits, "0");
}

function suffix(page: Page): string {
  return SUFFIXES[page.contentType] ?? (suffixOf(page.object) || "jpg");
}
