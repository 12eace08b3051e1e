package com.docpreview.client;

/**
 * A bad field of a request.
 *
 * @param field path of the field, such as {@code options.end_page}
 * @param description what to do about it
 */
public record FieldViolation(String field, String description) {}
