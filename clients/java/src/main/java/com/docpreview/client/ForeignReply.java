package com.docpreview.client;

import java.io.IOException;

/** A good reply to the address of a page that is not the page: a proxy's own, such as its sign-in page. Another may be it. */
final class ForeignReply extends IOException {
    private static final long serialVersionUID = 1L;

    ForeignReply(String what) {
        super(what);
    }
}
