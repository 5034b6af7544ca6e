//! Awaits what the request names in `x-await`, and tells in a header what came of it.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use weir_sdk::prelude::*;
use weir_sdk::task::{First, Signal};
use weir_sdk::{grpc, http, join, join_all, race, spawn, timeout, timer};

struct Awaits {
    /// What one stream fetches for all.
    shared: Rc<Shared>,
    /// Futures that wait for a call that takes its time.
    waiting: Rc<Cell<usize>>,
}

/// Counts as long as it lives.
struct Counted(Rc<Cell<usize>>);

impl Counted {
    fn new(count: &Rc<Cell<usize>>) -> Self {
        count.set(count.get() + 1);
        Self(Rc::clone(count))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// Pages of memory that the instance has.
fn pages() -> usize {
    #[cfg(target_family = "wasm")]
    return core::arch::wasm32::memory_size::<0>();
    #[cfg(not(target_family = "wasm"))]
    0
}

#[derive(Default)]
struct Shared {
    fetching: Cell<bool>,
    value: RefCell<Option<String>>,
    fetched: Signal,
}

#[derive(Default)]
struct Notes {
    mode: String,
    asked: Vec<String>,
}

/// Asks the cluster `other`, and tells what it says.
async fn ask(path: &str) -> Result<String> {
    let request = http::Request::post(path, "question").header("x-asks", "awaits");
    let answer = http::call("other", request.timeout(Duration::from_secs(5))).await?;
    Ok(format!("{} {}", answer.status(), String::from_utf8_lossy(answer.body())))
}

impl Awaits {
    /// One stream asks, and all others wait for that.
    async fn shared(&self) -> Result<String> {
        loop {
            if let Some(value) = &*self.shared.value.borrow() {
                return Ok(value.clone());
            }
            let fetched = self.shared.fetched.wait();
            if !self.shared.fetching.replace(true) {
                let shared = Rc::clone(&self.shared);
                spawn(async move {
                    let answer = ask("/shared").await.unwrap_or_else(|error| error.to_string());
                    shared.value.replace(Some(answer));
                    shared.fetched.give();
                });
            }
            fetched.await;
        }
    }
}

#[weir_sdk::http_filter(grants(clusters = ["other"]))]
impl HttpFilter for Awaits {
    type Stream = Notes;

    fn new(_: ()) -> Result<Self> {
        Ok(Self { shared: Rc::default(), waiting: Rc::default() })
    }

    async fn on_request_headers(&self, request: &mut Request, notes: &mut Notes) -> Result<Action> {
        notes.mode = request.header("x-await")?.unwrap_or_default();
        let came = match notes.mode.as_str() {
            "call" => ask("/request").await?,
            "two-calls" => {
                let (one, two) = join(ask("/one"), ask("/two")).await;
                format!("{}, {}", one?, two?)
            }
            "many-calls" => {
                let all = join_all(["/1", "/2", "/3"].map(ask)).await;
                all.into_iter().collect::<Result<Vec<_>>>()?.join(", ")
            }
            "one-after-the-other" => {
                let one = ask("/one").await?;
                format!("{one}, {}", ask("/two").await?)
            }
            "faster" => match race(ask("/never"), ask("/fast")).await {
                First::Left(never) => never?,
                First::Right(fast) => fast?,
            },
            "sleep" => {
                timer::sleep(Duration::from_millis(20)).await;
                "slept".to_owned()
            }
            "timeout" => match timeout(Duration::from_millis(30), ask("/never")).await {
                Ok(answer) => answer?,
                Err(error) => error.to_string(),
            },
            "no-answer" => {
                let request = http::Request::get("/never").timeout(Duration::from_millis(30));
                // Envoy answers for the cluster.
                match http::call("other", request).await {
                    Ok(answer) if answer.status() != 504 => format!("{}", answer.status()),
                    _ => "no answer".to_owned(),
                }
            }
            "unknown-cluster" => {
                http::call("no-such-cluster", http::Request::get("/")).await.map(|_| String::new())?
            }
            "grpc" => {
                let call =
                    grpc::call("other", "test.Service", "Ask", "question").metadata("x-asks", "awaits");
                match call.await {
                    Ok(message) => String::from_utf8_lossy(&message).into_owned(),
                    Err(failure) => failure.to_string(),
                }
            }
            "shared" => self.shared().await?,
            "deny" => {
                ask("/request").await?;
                return Ok(Action::Reply(Reply::new(403).body("denied after a call\n")));
            }
            "never" => ask("/never").await?,
            "held" => {
                let _counted = Counted::new(&self.waiting);
                let request = http::Request::post("/held", vec![b'x'; 1000]).timeout(Duration::from_secs(60));
                let answer = http::call("other", request);
                let (answer, ()) = join(answer, timer::sleep(Duration::from_millis(1))).await;
                format!("{}", answer?.status())
            }
            "left" => format!("{} waiting, {} pages", self.waiting.get(), pages()),
            _ => return Ok(Action::Continue),
        };
        notes.asked.push(came.clone());
        request.set_header("x-came", came)?;
        Ok(Action::Continue)
    }

    async fn on_response_headers(&self, response: &mut Response, notes: &mut Notes) -> Result<Action> {
        if notes.mode == "response" {
            let came = ask("/response").await?;
            response.set_header("x-came", came)?;
        }
        response.set_header("x-asked", notes.asked.join(", "))?;
        Ok(Action::Continue)
    }

    fn on_log(&self, _: &Request, _: &Response, notes: &mut Notes) {
        weir_sdk::info!("over: {} {}", notes.mode, notes.asked.len());
    }
}
