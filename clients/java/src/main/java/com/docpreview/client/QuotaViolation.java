package com.docpreview.client;

/**
 * A limit that was reached.
 *
 * @param subject whose limit, such as {@code caller:reports}
 * @param description which limit
 */
public record QuotaViolation(String subject, String description) {}
