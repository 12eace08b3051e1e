package com.docpreview.client;

import com.docpreview.v1.Page;
import com.docpreview.v1.PreviewOptions.TargetFormat;
import com.docpreview.v1.PreviewResult;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Set;
import java.util.function.ToIntFunction;
import java.util.regex.Pattern;

/** Names of pages on disk, which sort as the pages do. They are made from numbers alone, never from keys of objects. */
final class PageNames {
    /** Each name that is made here. */
    static final Pattern NAME = Pattern.compile("(page-\\d{4,10}|sheet-\\d{2,10}-page-\\d{3,10}|document)\\.(jpg|png|pdf)");

    private static final Map<String, String> BY_TYPE =
            Map.of("image/jpeg", "jpg", "image/png", "png", "application/pdf", "pdf");
    private static final Map<String, String> BY_SUFFIX = Map.of("jpg", "jpg", "jpeg", "jpg", "png", "png", "pdf", "pdf");

    private PageNames() {}

    /** The names of the result's pages, in their order; no two are the same. */
    static List<String> of(PreviewResult result) {
        if (result.getPagesCount() == 1 && suffix(result.getPages(0), result).equals("pdf")) {
            return List.of("document.pdf");
        }
        return result.getTotalSheetCount() > 0 ? ofSheets(result) : ofPages(result);
    }

    private static List<String> ofPages(PreviewResult result) {
        List<Integer> numbers = numbers(result.getPagesList(), Page::getPageNumber);
        List<String> names = new ArrayList<>();
        for (int index = 0; index < numbers.size(); index++) {
            names.add(String.format(
                    Locale.ROOT, "page-%04d.%s", numbers.get(index), suffix(result.getPages(index), result)));
        }
        return names;
    }

    private static List<String> ofSheets(PreviewResult result) {
        Map<Integer, List<Page>> sheets = new HashMap<>();
        result.getPagesList()
                .forEach(page -> sheets.computeIfAbsent(page.getPageNumber(), sheet -> new ArrayList<>()).add(page));
        Map<Integer, List<Integer>> numbers = new HashMap<>();
        sheets.forEach((sheet, pages) -> numbers.put(sheet, new ArrayList<>(numbers(pages, Page::getPictureNumber))));
        return result.getPagesList().stream()
                .map(page -> String.format(
                        Locale.ROOT,
                        "sheet-%02d-page-%03d.%s",
                        Math.max(0, page.getPageNumber()),
                        numbers.get(page.getPageNumber()).remove(0),
                        suffix(page, result)))
                .toList();
    }

    /** The numbers of these pages; counted from 1 where they are missing or not unique. */
    private static List<Integer> numbers(List<Page> pages, ToIntFunction<Page> number) {
        List<Integer> given = pages.stream().map(number::applyAsInt).toList();
        Set<Integer> distinct = new HashSet<>(given);
        boolean good = distinct.size() == given.size() && given.stream().allMatch(one -> one > 0);
        if (good) {
            return given;
        }
        List<Integer> counted = new ArrayList<>();
        pages.forEach(page -> counted.add(counted.size() + 1));
        return counted;
    }

    private static String suffix(Page page, PreviewResult result) {
        String byType = BY_TYPE.get(page.getContentType());
        if (byType != null) {
            return byType;
        }
        String key = page.getObject().toLowerCase(Locale.ROOT);
        return BY_SUFFIX.getOrDefault(key.substring(key.lastIndexOf('.') + 1), suffix(result.getTargetFormat()));
    }

    /** The suffix of results in this format. */
    static String suffix(TargetFormat format) {
        return switch (format) {
            case TARGET_FORMAT_PNG -> "png";
            case TARGET_FORMAT_PDF -> "pdf";
            default -> "jpg";
        };
    }
}
