package com.docpreview.client;

import java.time.Duration;

/** When a watch gives a stream up ({@code idle}), and when it gives up altogether ({@code unreachable}). */
record Patience(Duration idle, Duration unreachable) {}
