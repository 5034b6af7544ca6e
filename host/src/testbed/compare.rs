//! What is not as expected.

use std::fmt::Write;

use http::HeaderMap;
use serde_json::{Value as Json, json};

use crate::config::problem::Place;
use crate::config::value::Spanned;
use crate::testbed::seen::{Line, Seen, SeenCall, SeenRequest};
use crate::testbed::wanted::{Expect, Wanted, WantedCall, WantedHeaders, WantedRequest, WantedResponse};

/// Something that is not as expected.
#[derive(Debug, Clone, PartialEq)]
pub struct Difference {
    /// Where the expectation stands. A difference that no expectation is about has the place of its case.
    pub place: Place,
    /// What it is about, when the place does not say that.
    pub what: Option<String>,
    /// What was expected, for people.
    pub wanted: String,
    /// What there is, for people.
    pub got: String,
    /// What there is, as it would stand in the file; `None` where no expectation would mend it.
    pub instead: Option<Json>,
}

impl Difference {
    /// Trouble that no expectation is about.
    pub fn trouble(place: &Place, what: impl Into<String>) -> Self {
        let (wanted, got) = (String::new(), String::new());
        Self { place: place.clone(), what: Some(what.into()), wanted, got, instead: None }
    }

    /// The field and, line by line, what was expected and what there is.
    pub fn text(&self) -> String {
        let mut text = self.what.clone().unwrap_or_else(|| self.place.field.to_string());
        if self.wanted.is_empty() && self.got.is_empty() {
            return text;
        }
        let (wanted, got): (Vec<&str>, Vec<&str>) =
            (self.wanted.lines().collect(), self.got.lines().collect());
        let same = wanted.iter().zip(&got).take_while(|(a, b)| a == b).count();
        let rest = wanted.len().min(got.len()) - same;
        let same_end =
            wanted.iter().rev().zip(got.iter().rev()).take(rest).take_while(|(a, b)| a == b).count();
        let lines = wanted.iter().take(same).map(|line| (' ', *line));
        let middle = |sign, all: &[&'_ str]| -> Vec<(char, String)> {
            let changed = all.get(same..all.len() - same_end).unwrap_or_default();
            changed.iter().map(|line| (sign, (*line).to_owned())).collect()
        };
        let end = wanted.iter().skip(wanted.len() - same_end).map(|line| (' ', *line));
        let owned = |(sign, line): (char, &str)| (sign, line.to_owned());
        let all = lines.map(owned).chain(middle('-', &wanted)).chain(middle('+', &got)).chain(end.map(owned));
        for (sign, line) in all {
            // Writing to a text does not fail.
            let _ = write!(text, "\n  {sign} {line}");
        }
        text
    }
}

/// Where a plugin has run, as far as something of it is there after a stream.
pub trait Left {
    /// The shared data of the filter.
    fn shared_data(&self, key: &str) -> Option<Vec<u8>>;

    /// A metric that the plugin defined, by the name that it gave it: a number, or how many values a histogram has.
    fn metric(&self, name: &str) -> Option<i64>;
}

/// Compares what was seen of a stream with what is expected of it. `place`: where the stream stands.
pub fn compare(expect: Option<&Expect>, seen: &Seen, left: &dyn Left, place: &Place) -> Vec<Difference> {
    let mut found = Differences(Vec::new());
    found.trouble(expect, seen, place);
    let Some(expect) = expect else { return found.0 };
    found.request(expect.request.as_ref(), seen, place);
    found.response(expect.response.as_ref(), seen, place);
    for (wanted, got) in [(&expect.forwarded, seen.request.is_some()), (&expect.closed, seen.closed)] {
        if let Some(wanted) = wanted
            && wanted.value != got
        {
            found.add(&wanted.place, wanted.value.to_string(), got.to_string(), got.into());
        }
    }
    found.bytes(expect.cluster.as_ref(), seen.cluster.as_deref().map(str::as_bytes));
    found.bytes(expect.upstream_gets.as_ref(), Some(&seen.upstream_gets));
    found.bytes(expect.client_gets.as_ref(), Some(&seen.client_gets));
    found.bytes(expect.details.as_ref(), seen.details.as_deref().map(str::as_bytes));
    found.bytes(expect.failure.as_ref(), seen.failures.first().map(String::as_bytes));
    if let Some(wanted) = &expect.calls {
        found.calls(wanted, &seen.calls);
    }
    if let Some(wanted) = &expect.log {
        found.log(wanted, &seen.log);
    }
    for (path, wanted) in &expect.properties {
        let value = seen.properties.get(path).cloned().flatten();
        found.property(wanted, value.as_deref());
    }
    for (key, wanted) in &expect.shared_data {
        found.bytes(Some(wanted), left.shared_data(key).as_deref());
    }
    for (name, wanted) in &expect.metrics {
        let value = left.metric(name).map(|value| value.to_string());
        found.bytes(Some(wanted), value.as_deref().map(str::as_bytes));
    }
    found.0
}

struct Differences(Vec<Difference>);

impl Differences {
    fn add(&mut self, place: &Place, wanted: String, got: String, instead: Json) {
        let place = place.clone();
        self.0.push(Difference { place, what: None, wanted, got, instead: Some(instead) });
    }

    /// What is never as it should be, unless it was expected.
    fn trouble(&mut self, expect: Option<&Expect>, seen: &Seen, place: &Place) {
        if seen.stuck {
            let what = "the stream never ends: a filter waits, and there is nothing that it could wait for";
            self.0.push(Difference::trouble(place, what));
        }
        if expect.is_none_or(|expect| expect.failure.is_none()) {
            for failure in &seen.failures {
                self.0.push(Difference::trouble(place, format!("the plugin failed: {failure}")));
            }
        }
        for call in &seen.unanswered {
            let what = format!("no answer is planned for a call: {call}; add it to `calls`");
            self.0.push(Difference::trouble(place, what));
        }
    }

    fn bytes(&mut self, wanted: Option<&Spanned<Wanted>>, got: Option<&[u8]>) {
        let Some(wanted) = wanted.filter(|wanted| !wanted.fits(got)) else { return };
        let instead = instead(&wanted.value, got);
        let shown = match (&wanted.value, &instead) {
            (Wanted::Json(_), Json::Object(fields)) => {
                format!("(JSON) {:#}", fields.get("json").unwrap_or(&Json::Null))
            }
            _ => got.map_or_else(|| "(none)".to_owned(), |got| String::from_utf8_lossy(got).into_owned()),
        };
        self.add(&wanted.place, wanted.describe(), shown, instead);
    }

    /// Numbers and truth values of properties are bytes of their own kind.
    fn property(&mut self, wanted: &Spanned<Wanted>, got: Option<&[u8]>) {
        if wanted.fits(got) {
            return;
        }
        let readable = got.map(readable);
        self.bytes(Some(wanted), readable.as_deref().map(str::as_bytes));
    }

    fn headers(&mut self, wanted: &WantedHeaders, got: &HeaderMap) {
        for (name, wanted) in &wanted.0 {
            let values: Vec<&[u8]> = got.get_all(name).iter().map(|value| value.as_bytes()).collect();
            let pairs = wanted.value.iter().zip(&values);
            let absent = wanted.value.iter().all(|one| *one == Wanted::Absent);
            let fits = values.is_empty() && absent
                || values.len() == wanted.value.len()
                    && pairs.clone().all(|(wanted, got)| wanted.fits(Some(got)));
            if fits {
                continue;
            }
            let text = |value: &&[u8]| String::from_utf8_lossy(value).into_owned();
            let texts: Vec<String> = values.iter().map(text).collect();
            let instead = match texts.as_slice() {
                [] => Json::Null,
                [one] => one.as_str().into(),
                several => json!(several),
            };
            let or_none =
                |texts: Vec<String>| if texts.is_empty() { "(none)".to_owned() } else { texts.join("\n") };
            let described = wanted.value.iter().map(Wanted::describe).collect();
            self.add(&wanted.place, or_none(described), or_none(texts), instead);
        }
    }

    fn request(&mut self, wanted: Option<&WantedRequest>, seen: &Seen, place: &Place) {
        let Some(wanted) = wanted else { return };
        let Some(got) = &seen.request else {
            let status = seen
                .response
                .as_ref()
                .map_or_else(String::new, |response| format!(" (the client got {})", response.status));
            return self.0.push(Difference::trouble(place, format!("the upstream gets no request{status}")));
        };
        self.bytes(wanted.method.as_ref(), Some(got.method.as_bytes()));
        self.bytes(wanted.host.as_ref(), Some(got.host.as_bytes()));
        self.bytes(wanted.path.as_ref(), Some(got.path.as_bytes()));
        self.headers(&wanted.headers, &got.headers);
        self.bytes(wanted.body.as_ref(), Some(&got.body));
        self.headers(&wanted.trailers, &got.trailers);
    }

    fn response(&mut self, wanted: Option<&WantedResponse>, seen: &Seen, place: &Place) {
        let Some(wanted) = wanted else { return };
        let Some(got) = &seen.response else {
            return self
                .0
                .push(Difference::trouble(place, "the client gets no response: the stream is reset"));
        };
        self.bytes(wanted.status.as_ref(), Some(got.status.to_string().as_bytes()));
        self.headers(&wanted.headers, &got.headers);
        self.bytes(wanted.body.as_ref(), Some(&got.body));
        self.headers(&wanted.trailers, &got.trailers);
    }

    fn calls(&mut self, wanted: &Spanned<Vec<WantedCall>>, got: &[SeenCall]) {
        if wanted.value.len() != got.len() {
            let count = |count: usize| format!("{count} call{}", if count == 1 { "" } else { "s" });
            let shown: Vec<String> = got.iter().map(describe).collect();
            let got_text = [count(got.len())].into_iter().chain(shown).collect::<Vec<_>>().join("\n");
            let instead = got.iter().map(call_json).collect();
            return self.add(&wanted.place, count(wanted.value.len()), got_text, instead);
        }
        for (wanted, SeenCall { cluster, grpc, request }) in wanted.value.iter().zip(got) {
            let SeenRequest { method, host, path, headers, body, .. } = request;
            self.bytes(wanted.cluster.as_ref(), Some(cluster.as_bytes()));
            self.bytes(wanted.grpc.as_ref(), grpc.as_deref().map(str::as_bytes));
            self.bytes(wanted.method.as_ref(), Some(method.as_bytes()));
            self.bytes(wanted.host.as_ref(), Some(host.as_bytes()));
            self.bytes(wanted.path.as_ref(), Some(path.as_bytes()));
            self.headers(&wanted.headers, headers);
            self.bytes(wanted.body.as_ref(), Some(body));
        }
    }

    fn log(&mut self, wanted: &Spanned<Vec<Spanned<Wanted>>>, got: &[Line]) {
        let lines: Vec<String> = got.iter().map(Line::shown).collect();
        let mut rest = lines.iter();
        let missing = wanted.value.iter().find(|wanted| !rest.any(|line| wanted.fits(Some(line.as_bytes()))));
        let unwanted = wanted.value.is_empty() && !lines.is_empty();
        if missing.is_none() && !unwanted {
            return;
        }
        let described = wanted.value.iter().map(|line| line.describe()).collect::<Vec<_>>();
        let or_none =
            |lines: &[String]| if lines.is_empty() { "(no lines)".to_owned() } else { lines.join("\n") };
        self.add(&wanted.place, or_none(&described), or_none(&lines), json!(lines));
    }
}

/// What would be expected, in the same form.
fn instead(wanted: &Wanted, got: Option<&[u8]>) -> Json {
    let Some(got) = got else { return Json::Null };
    if let Wanted::Json(_) = wanted
        && let Ok(json) = serde_json::from_slice::<Json>(got)
    {
        return json!({ "json": json });
    }
    text_json(got)
}

/// Bytes as they would stand in a file.
pub fn text_json(bytes: &[u8]) -> Json {
    match str::from_utf8(bytes) {
        // A number without quotes is the same text, and reads better.
        Ok(text) => match text.parse::<u32>() {
            Ok(number) if number.to_string() == text => number.into(),
            Ok(_) | Err(_) => text.into(),
        },
        Err(_) => json!({ "base64": data_encoding::BASE64.encode(bytes) }),
    }
}

/// The value of a property, whose numbers have 8 bytes and whose truth values have one.
fn readable(value: &[u8]) -> String {
    match (value, <[u8; 8]>::try_from(value)) {
        ([0], _) => "false".to_owned(),
        ([1], _) => "true".to_owned(),
        (_, Ok(number)) if !value.iter().all(|byte| byte.is_ascii_graphic()) => {
            i64::from_le_bytes(number).to_string()
        }
        _ => String::from_utf8_lossy(value).into_owned(),
    }
}

fn describe(call: &SeenCall) -> String {
    let SeenCall { cluster, grpc, request } = call;
    match grpc {
        Some(method) => format!("{cluster}: gRPC {method}"),
        None => format!("{cluster}: {} {}", request.method, request.path),
    }
}

/// A call as it would stand in a file.
pub fn call_json(call: &SeenCall) -> Json {
    let mut fields = serde_json::Map::new();
    fields.insert("cluster".to_owned(), call.cluster.as_str().into());
    match &call.grpc {
        Some(method) => drop(fields.insert("grpc".to_owned(), method.as_str().into())),
        None => {
            fields.insert("method".to_owned(), call.request.method.as_str().into());
            fields.insert("path".to_owned(), call.request.path.as_str().into());
        }
    }
    if !call.request.body.is_empty() {
        fields.insert("body".to_owned(), text_json(&call.request.body));
    }
    fields.into()
}
