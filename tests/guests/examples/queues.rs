//! A queue that instances share: puts into it, awaits what comes out, in a stream and in none.

use std::time::Duration;

use weir_sdk::prelude::*;
use weir_sdk::queue::{self, Queue};
use weir_sdk::{Error, spawn, timeout};

struct Queues {
    queue: Queue,
}

#[weir_sdk::http_filter]
impl HttpFilter for Queues {
    fn new(_: ()) -> Result<Self> {
        let noted = queue::open("noted")?;
        spawn(async move {
            while let Ok(entry) = noted.next().await {
                weir_sdk::info!("noted: {}", String::from_utf8_lossy(&entry));
            }
        });
        Ok(Self { queue: queue::open("handed")? })
    }

    async fn on_request_headers(&self, request: &mut Request, _: &mut ()) -> Result<Action> {
        let path = request.path()?;
        let came = match path.split('/').collect::<Vec<_>>()[..] {
            ["", "hand", value] => {
                self.queue.push(value)?;
                "handed".to_owned()
            }
            ["", "note", value] => {
                queue::open("noted")?.push(value)?;
                "to be noted".to_owned()
            }
            ["", "take"] => text(self.queue.pop()?.unwrap_or_else(|| b"nothing".to_vec()))?,
            ["", "await"] => text(self.queue.next().await?)?,
            ["", "await-a-little"] => match timeout(Duration::from_millis(30), self.queue.next()).await {
                Ok(value) => text(value?)?,
                Err(_) => "nothing came".to_owned(),
            },
            ["", "find", vm_id, name] => match queue::find(vm_id, name) {
                Ok(Some(found)) => found.push("from afar").map(|()| "found".to_owned())?,
                Ok(None) => "there is none".to_owned(),
                Err(error) => error.to_string(),
            },
            _ => return Err(Error::new("no such request")),
        };
        Ok(Action::Reply(Reply::new(200).body(came)))
    }
}

fn text(value: Vec<u8>) -> Result<String> {
    String::from_utf8(value).map_err(|_| Error::new("no text"))
}
