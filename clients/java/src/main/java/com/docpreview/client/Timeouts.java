package com.docpreview.client;

import java.time.Duration;

/** How long calls may take that name no timeout of their own. */
record Timeouts(Duration unary, Duration waiting, Duration watch) {}
