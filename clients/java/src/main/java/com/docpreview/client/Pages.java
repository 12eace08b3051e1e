package com.docpreview.client;

import java.util.Collection;
import java.util.function.Function;
import java.util.stream.Stream;

/** From pages that lead to each other by tokens to one stream. */
final class Pages {
    private Pages() {}

    /** Everything from the page of {@code first} on; a page is fetched when the stream gets to it. */
    static <P, T> Stream<T> from(
            String first, Function<String, P> fetch, Function<P, String> nextToken, Function<P, Collection<T>> items) {
        // A page is fetched as a lazy stream is read, so its successor must be asked for after it, never before.
        return Stream.iterate(
                        new Page<>(first, fetch),
                        page -> page != null,
                        page -> nextToken.apply(page.content()).isEmpty()
                                ? null
                                : new Page<>(nextToken.apply(page.content()), fetch))
                .flatMap(page -> items.apply(page.content()).stream());
    }

    private static final class Page<P> {
        private final String token;
        private final Function<String, P> fetch;
        private P content;

        Page(String token, Function<String, P> fetch) {
            this.token = token;
            this.fetch = fetch;
        }

        P content() {
            content = content == null ? fetch.apply(token) : content;
            return content;
        }
    }
}
