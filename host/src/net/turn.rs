//! Turns: whoever moves bytes for as long as both of its sides keep up lets others come in between.
//!
//! A task of a worker that never has to wait is left alone by the runtime for 128 reads and writes, which is 4 MiB at a time, and
//! everybody else on the worker waits for them.

use std::pin::pin;
use std::task::{Context, Poll};

use tokio::task::yield_now;

/// What is done in one turn, in bytes: 0.2 ms or less.
pub const TURN: usize = 64 * 1024;

/// What a piece counts for at least, in bytes: to pass on a chunk of one byte takes as long as some hundreds of them.
const LEAST: usize = 1024;

/// Has others have their turn before the task goes on. What has arrived for them meanwhile is looked for.
pub fn give_way<T>(cx: &mut Context<'_>) -> Poll<T> {
    // Its first poll only says that the task is to go on later.
    let _ = pin!(yield_now()).poll(cx);
    Poll::Pending
}

/// What a task has done since others had their turn.
#[derive(Debug, Default)]
pub struct Turn {
    done: usize,
}

impl Turn {
    /// Counts a piece of so many bytes that was moved. When the turn is over, others have theirs, and what has arrived
    /// for them meanwhile is looked for.
    pub async fn moved(&mut self, bytes: usize) {
        self.done += bytes.max(LEAST);
        if self.done >= TURN {
            self.done = 0;
            yield_now().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use tokio::runtime::{Builder, LocalOptions};
    use tokio::task::spawn_local;

    use super::*;

    /// The most pieces of so many bytes that a task which never waits moves while somebody else wants to be served.
    fn most_in_a_row(bytes: usize) -> usize {
        let runtime = Builder::new_current_thread().build_local(LocalOptions::default()).expect("a runtime");
        runtime.block_on(async {
            let (moved, over) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(false)));
            let (own, ends) = (Rc::clone(&moved), Rc::clone(&over));
            let mover = spawn_local(async move {
                let mut turn = Turn::default();
                while !ends.get() && own.get() < 100_000 {
                    turn.moved(bytes).await;
                    own.set(own.get() + 1);
                }
            });
            let (mut seen, mut most) = (0, 0);
            for _ in 0..100 {
                yield_now().await;
                most = most.max(moved.get() - seen);
                seen = moved.get();
            }
            over.set(true);
            mover.await.expect("it does not panic");
            most
        })
    }

    #[test]
    fn others_have_their_turn_after_64_kib_however_they_are_cut() {
        assert_eq!(most_in_a_row(64 << 10), 1);
        assert_eq!(most_in_a_row(16 << 10), 4);
        assert_eq!(most_in_a_row(1), 64, "a byte counts for more than it is");
        assert_eq!(most_in_a_row(0), 64);
    }
}
