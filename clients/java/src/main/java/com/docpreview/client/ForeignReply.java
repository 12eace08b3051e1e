package com.docpreview.client;

import java.io.IOException;

/** A reply that is not the store's but a proxy's own, such as its sign-in page. Asking again may reach the store. */
final class ForeignReply extends IOException {
    private static final long serialVersionUID = 1L;

    ForeignReply(String what) {
        super(what);
    }
}
