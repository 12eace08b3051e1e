package com.docpreview.client;

import java.time.Duration;

/** Timeouts after which a watch replaces a stream ({@code idle}), and after which it fails ({@code unreachable}). */
record Patience(Duration idle, Duration unreachable) {}
