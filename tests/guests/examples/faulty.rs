//! Goes wrong in the way that the request names in `x-fault`.

use weir_sdk::prelude::*;

struct Faulty;

#[weir_sdk::http_filter]
impl HttpFilter for Faulty {
    type Stream = String;

    fn new(_: ()) -> Result<Self> {
        Ok(Self)
    }

    fn on_request_headers(&self, request: &mut Request, fault: &mut String) -> Result<Action> {
        *fault = request.header("x-fault")?.unwrap_or_default();
        match fault.as_str() {
            "trap" => panic!("on purpose"),
            "loop" => spin(),
            "memory" => {
                let mut hoard = Vec::new();
                loop {
                    hoard.push(std::hint::black_box(vec![1_u8; 1 << 20]));
                }
            }
            "deep" => {
                std::hint::black_box(deep(0));
            }
            "exit" => std::process::exit(3),
            "edit-late-trap" => request.set_header("x-edited", "yes")?,
            "edit-trap" => {
                request.set_header("x-edited", "yes")?;
                panic!("after an edit");
            }
            _ => {}
        }
        Ok(Action::Continue)
    }

    fn on_response_headers(&self, _: &mut Response, fault: &mut String) -> Result<Action> {
        if fault.ends_with("late-trap") {
            panic!("in the response");
        }
        Ok(Action::Continue)
    }
}

fn spin() {
    let mut n = 0_u64;
    loop {
        n = std::hint::black_box(n.wrapping_add(1));
    }
}

fn deep(n: u64) -> u64 {
    let here = std::hint::black_box([n; 64]);
    if n == u64::MAX { 0 } else { deep(n + 1) + here[1] }
}
