//! Requests that are served, and what the upstream sees of them, byte for byte.

/// What is served: what it is, request line and fields, body, and the same as the upstream sees them. Host, id and what
/// Weir adds about the client are the same in all, and so is `Connection: close`.
pub struct Served {
    pub what: &'static str,
    pub line: &'static str,
    pub fields: &'static str,
    pub body: &'static str,
    pub seen_line: &'static str,
    pub seen_fields: &'static str,
    pub seen_framing: &'static str,
    pub seen_body: &'static str,
}

const fn line(what: &'static str, line: &'static str, seen_line: &'static str) -> Served {
    Served { what, line, fields: "", body: "", seen_line, seen_fields: "", seen_framing: "", seen_body: "" }
}

const fn fields(what: &'static str, fields: &'static str, seen_fields: &'static str) -> Served {
    let (line, seen_line) = ("GET / HTTP/1.1", "GET /");
    Served { what, line, fields, body: "", seen_line, seen_fields, seen_framing: "", seen_body: "" }
}

const fn length(what: &'static str, fields: &'static str, seen_framing: &'static str) -> Served {
    let (line, seen_line) = ("POST / HTTP/1.1", "POST /");
    Served { what, line, fields, body: "", seen_line, seen_fields: "", seen_framing, seen_body: "" }
}

const fn body(what: &'static str, fields: &'static str, body: &'static str) -> Served {
    let (line, seen_line) = ("POST / HTTP/1.1", "POST /");
    let seen_framing = "content-length: 5\r\n";
    Served { what, line, fields, body, seen_line, seen_fields: "", seen_framing, seen_body: "hello" }
}

const fn chunked(what: &'static str, body: &'static str, seen_body: &'static str) -> Served {
    let (line, seen_line) = ("POST / HTTP/1.1", "POST /");
    let (fields, seen_framing) = ("Transfer-Encoding: chunked\r\n", "transfer-encoding: chunked\r\n");
    Served { what, line, fields, body, seen_line, seen_fields: "", seen_framing, seen_body }
}

pub const SERVED: &[Served] = &[
    line("a request", "GET / HTTP/1.1", "GET /"),
    line("HTTP/1.0", "GET / HTTP/1.0", "GET /"),
    line("one empty line before it", "\r\nGET / HTTP/1.1", "GET /"),
    line("a method that nobody knows", "M-SEARCH / HTTP/1.1", "M-SEARCH /"),
    line("methods have a case", "get / HTTP/1.1", "get /"),
    line("every character that a method may have", "A!#$%&'*+-.^_`|~9 / HTTP/1.1", "A!#$%&'*+-.^_`|~9 /"),
    line(
        "a query with anything in it",
        "GET /a?b=//c/../%2f%zz&d=\"<>\\^`{|} HTTP/1.1",
        "GET /a?b=//c/../%2f%zz&d=\"<>\\^`{|}",
    ),
    line("a second question mark", "GET /a?b?c HTTP/1.1", "GET /a?b?c"),
    line("parameters", "GET /a;b=c,d:e@f!$&'()*+ HTTP/1.1", "GET /a;b=c,d:e@f!$&'()*+"),
    line("an absolute target", "GET http://a/b?c HTTP/1.1", "GET /b?c"),
    line("an absolute target in another case", "GET HTTP://A/b HTTP/1.1", "GET /b"),
    line("an absolute target without a path", "GET http://a HTTP/1.1", "GET /"),
    line("an absolute target with a query alone", "GET http://a?b HTTP/1.1", "GET /?b"),
    line("all of a server", "OPTIONS * HTTP/1.1", "OPTIONS *"),
    line("a dot segment", "GET /a/./b HTTP/1.1", "GET /a/b"),
    line("two dots", "GET /a/../b HTTP/1.1", "GET /b"),
    line("more dots than segments", "GET /../../a HTTP/1.1", "GET /a"),
    line("escaped dots", "GET /a/%2e%2E/b HTTP/1.1", "GET /b"),
    line("three dots", "GET /.../a.. HTTP/1.1", "GET /.../a.."),
    line("several slashes", "GET //a///b// HTTP/1.1", "GET /a/b/"),
    line("what needs no escape", "GET /%61%2D%7e HTTP/1.1", "GET /a-~"),
    line("what does", "GET /%c3%A9%20%252f HTTP/1.1", "GET /%C3%A9%20%252f"),
    line("an absolute target with dots", "GET http://a/b/../c HTTP/1.1", "GET /c"),
    fields("a field", "X-A: 1\r\n", "x-a: 1\r\n"),
    fields("no value", "X-A:\r\n", "x-a: \r\n"),
    fields("no space", "X-A:1\r\n", "x-a: 1\r\n"),
    fields("whitespace around a value", "X-A: \t 1 2 \t \r\n", "x-a: 1 2\r\n"),
    fields("bytes above ASCII", "X-A: \u{e9}\r\n", "x-a: \u{e9}\r\n"),
    fields("a colon in a value", "X-A: b:c\r\n", "x-a: b:c\r\n"),
    fields("two of a name", "X-A: 1\r\nx-a: 2\r\n", "x-a: 1\r\nx-a: 2\r\n"),
    fields("every character that a name may have", "x!#$%&'*+-.^`|~9: 1\r\n", "x!#$%&'*+-.^`|~9: 1\r\n"),
    // What `Connection` nominates goes (CVE of Pingora), and so do the fields of one connection.
    fields("a nominated field", "Connection: x-a\r\nX-B: 2\r\nX-A: 1\r\n", "x-b: 2\r\n"),
    fields("nominated fields", "X-B: 2\r\nConnection: x-A ,, X-c\r\nX-A: 1\r\nX-C: 3\r\n", "x-b: 2\r\n"),
    fields("a claim that is nominated", "Connection: x-forwarded-for\r\nX-Forwarded-For: 9.9.9.9\r\n", ""),
    fields("the fields of one connection", "Keep-Alive: 5\r\nProxy-Connection: close\r\nTE: gzip\r\n", ""),
    fields("an upgrade that is not nominated", "Upgrade: websocket\r\n", ""),
    fields(
        "an upgrade to HTTP/2",
        "Connection: upgrade, http2-settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n",
        "",
    ),
    fields("a body of no bytes that GET has", "Content-Length: 0\r\n", ""),
    length("no body of POST", "", "content-length: 0\r\n"),
    length("an empty body", "Content-Length: 0\r\n", "content-length: 0\r\n"),
    length("an empty body with many zeros", "Content-Length: 000\r\n", "content-length: 0\r\n"),
    body("a body", "Content-Length: 5\r\n", "hello"),
    body("zeros before a length", "Content-Length: 0005\r\n", "hello"),
    body("whitespace around a length", "Content-Length: \t5 \r\n", "hello"),
    // Its length is known all the same, and told in another way.
    Served {
        what: "a nominated length",
        line: "POST / HTTP/1.1",
        fields: "Connection: content-length\r\nContent-Length: 5\r\n",
        body: "hello",
        seen_line: "POST /",
        seen_fields: "",
        seen_framing: "transfer-encoding: chunked\r\n",
        seen_body: "5\r\nhello\r\n0\r\n\r\n",
    },
    body("a length in another case", "cOnTeNt-LeNgTh: 5\r\n", "hello"),
    chunked("chunks", "5\r\nhello\r\n0\r\n\r\n", "5\r\nhello\r\n0\r\n\r\n"),
    chunked("a size in capitals", "A\r\n0123456789\r\n0\r\n\r\n", "a\r\n0123456789\r\n0\r\n\r\n"),
    chunked("zeros before a size", "0005\r\nhello\r\n000\r\n\r\n", "5\r\nhello\r\n0\r\n\r\n"),
    chunked("an extension", "5;a\r\nhello\r\n0;b\r\n\r\n", "5\r\nhello\r\n0\r\n\r\n"),
    chunked("extensions with values", "5;a=b;c=\"d;\\\"e\"\r\nhello\r\n0\r\n\r\n", "5\r\nhello\r\n0\r\n\r\n"),
    chunked("a trailer", "5\r\nhello\r\n0\r\nX-A: 1\r\n\r\n", "5\r\nhello\r\n0\r\nx-a: 1\r\n\r\n"),
    chunked(
        "trailers that would be framing",
        "0\r\nContent-Length: 5\r\nHost: b\r\nTransfer-Encoding: x\r\n\r\n",
        "0\r\n\r\n",
    ),
    chunked("no data", "0\r\n\r\n", "0\r\n\r\n"),
];
