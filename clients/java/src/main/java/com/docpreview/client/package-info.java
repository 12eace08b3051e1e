/**
 * Client of the docpreview gateway: previews of documents as page images.
 *
 * <p>{@link com.docpreview.client.DocPreviewClient} makes the calls, {@link
 * com.docpreview.client.DocPreviewException} says what went wrong. Requests and replies are the messages of {@code
 * com.docpreview.v1}; what their fields mean stands in the .proto files, which the jar contains too.
 */
package com.docpreview.client;
