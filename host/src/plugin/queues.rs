//! Shared queues: what one plugin puts in, another takes out, on whatever worker it runs.
//!
//! A queue belongs to a scope, and is known by a token, which is never 0. Whoever registered last is told when something
//! was put in; when that VM is gone, the one before it.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::mpsc::UnboundedSender;
use weir_abi::Status;

use crate::plugin::quotas::{ENTRY, Pool, Quota, SMALL, Unwritten};

/// The queues of the process.
#[derive(Debug)]
pub struct Queues {
    inner: Mutex<Inner>,
    /// What all scopes draw from.
    all: Arc<Pool>,
}

#[derive(Debug, Default)]
struct Inner {
    tokens: HashMap<(Arc<str>, Box<[u8]>), u32>,
    /// The queue with the token n is at n - 1.
    queues: Vec<Queue>,
}

#[derive(Debug)]
struct Queue {
    scope: Arc<str>,
    values: VecDeque<Bytes>,
    bytes: usize,
    listeners: Vec<Listener>,
    /// Whether nobody was there to be told of what was put in.
    untold: bool,
}

/// Something was put into a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ready {
    /// Which instance of the VM registered.
    pub generation: u64,
    /// The root context that is told.
    pub root: u32,
    /// The queue.
    pub queue: u32,
}

/// Who is told, and by what way.
#[derive(Debug, Clone)]
pub struct Listener {
    /// The number of the VM.
    pub vm: u64,
    /// Which instance of it.
    pub generation: u64,
    /// The root context.
    pub root: u32,
    /// The VM's mailbox on its worker.
    pub mailbox: UnboundedSender<Ready>,
}

/// Queues that there may be, and the values and bytes that one may hold: it is the host's memory.
const MOST_QUEUES: usize = 4096;
const MOST_VALUES: usize = 1 << 16;
const MOST_BYTES: usize = 16 << 20;

/// Queues that one scope may have, so that none takes the room of the others.
const MOST_OF_SCOPE: usize = 256;

/// The bytes of all queues of a scope. What a queue holds of up to [`SMALL`] is not asked for there: the number of queues
/// bounds it.
pub const MOST_BYTES_OF_SCOPE: usize = 64 << 20;

impl Queues {
    /// No queues yet. `all`: what all scopes draw from.
    pub fn new(all: Arc<Pool>) -> Self {
        Self { inner: Mutex::default(), all }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The token of a queue, which is made when there is none; `None` when there are too many.
    pub fn open(&self, scope: &Arc<str>, name: &[u8]) -> Option<u32> {
        let mut inner = self.lock();
        let key = (Arc::clone(scope), name.into());
        if let Some(token) = inner.tokens.get(&key) {
            return Some(*token);
        }
        let of_scope = inner.queues.iter().filter(|queue| queue.scope == *scope).count();
        if inner.queues.len() >= MOST_QUEUES || of_scope >= MOST_OF_SCOPE {
            return None;
        }
        let queue = Queue {
            scope: Arc::clone(scope),
            values: VecDeque::new(),
            bytes: 0,
            listeners: Vec::new(),
            untold: false,
        };
        inner.queues.push(queue);
        let token = u32::try_from(inner.queues.len()).ok()?;
        inner.tokens.insert(key, token);
        Some(token)
    }

    /// The token of a queue that there is.
    pub fn find(&self, scope: &Arc<str>, name: &[u8]) -> Option<u32> {
        self.lock().tokens.get(&(Arc::clone(scope), name.into())).copied()
    }

    /// The scope that a queue belongs to.
    pub fn scope(&self, queue: u32) -> Option<Arc<str>> {
        self.lock().get(queue).map(|queue| Arc::clone(&queue.scope))
    }

    /// Has a plugin told of what is put into a queue from now on, and of what nobody was told of.
    pub fn listen(&self, queue: u32, listener: Listener) {
        let mut inner = self.lock();
        let Some(found) = inner.get(queue) else { return };
        // Those whose VM is gone would only add up, one for each reload.
        found.listeners.retain(|known| {
            let same = (known.vm, known.root) == (listener.vm, listener.root)
                && known.mailbox.same_channel(&listener.mailbox);
            !same && !known.mailbox.is_closed()
        });
        found.listeners.push(listener);
        if std::mem::take(&mut found.untold) && !found.values.is_empty() {
            found.tell(queue);
        }
    }

    /// Puts a value in. `total`: bytes that all scopes may have together.
    ///
    /// # Errors
    /// [`Status::NotFound`] when there is no such queue; the quota, when it is full, or its scope is, or all of them are.
    pub fn push(&self, queue: u32, value: &[u8], total: usize) -> Result<(), Unwritten> {
        let mut inner = self.lock();
        let found = inner.get(queue).ok_or(Unwritten::Status(Status::NotFound))?;
        let full = Err(Unwritten::Quota(Quota::Shared));
        if found.values.len() >= MOST_VALUES || value.len() > MOST_BYTES.saturating_sub(found.bytes) {
            return full;
        }
        let cost = value.len() + ENTRY;
        if found.bytes + found.values.len() * ENTRY + cost <= SMALL {
            self.all.take_anyway(cost);
        } else {
            let scope = Arc::clone(&found.scope);
            let own = inner.queues.iter().filter(|queue| queue.scope == scope);
            if own.map(|queue| queue.bytes).sum::<usize>() + value.len() > MOST_BYTES_OF_SCOPE {
                return full;
            }
            if !self.all.take(cost, total) {
                return Err(Unwritten::Quota(Quota::SharedTotal));
            }
        }
        let found = inner.get(queue).ok_or(Unwritten::Status(Status::NotFound))?;
        found.bytes += value.len();
        found.values.push_back(Bytes::copy_from_slice(value));
        found.tell(queue);
        Ok(())
    }

    /// Takes the oldest value out.
    ///
    /// # Errors
    /// [`Status::NotFound`] when there is no such queue, [`Status::Empty`] when nothing is in it.
    pub fn pop(&self, queue: u32) -> Result<Bytes, Status> {
        let mut inner = self.lock();
        let found = inner.get(queue).ok_or(Status::NotFound)?;
        let value = found.values.pop_front().ok_or(Status::Empty)?;
        found.bytes -= value.len();
        self.all.give_back(value.len() + ENTRY);
        Ok(value)
    }

    /// Puts a value that could not be delivered back in front, even when the queue has become full in the meantime:
    /// no more can come back than was taken.
    pub fn put_back(&self, queue: u32, value: Bytes) {
        if let Some(found) = self.lock().get(queue) {
            found.bytes += value.len();
            self.all.take_anyway(value.len() + ENTRY);
            found.values.push_front(value);
        }
    }
}

impl Inner {
    fn get(&mut self, queue: u32) -> Option<&mut Queue> {
        self.queues.get_mut((queue as usize).checked_sub(1)?)
    }
}

impl Queue {
    /// Tells whoever registered last and is still there.
    fn tell(&mut self, queue: u32) {
        while let Some(Listener { generation, root, mailbox, .. }) = self.listeners.last() {
            // A mailbox is closed with its VM.
            if mailbox.send(Ready { generation: *generation, root: *root, queue }).is_ok() {
                return;
            }
            self.listeners.pop();
        }
        self.untold = true;
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc::unbounded_channel;

    use super::*;

    const FULL: Result<(), Unwritten> = Err(Unwritten::Quota(Quota::Shared));

    fn listener(vm: u64, mailbox: UnboundedSender<Ready>) -> Listener {
        Listener { vm, generation: 0, root: 1, mailbox }
    }

    #[test]
    fn values_come_out_in_order_and_queues_are_apart_by_scope() {
        let queues = Queues::new(Arc::default());
        let (a, b) =
            (queues.open(&"a".into(), b"q").expect("room"), queues.open(&"b".into(), b"q").expect("room"));
        assert_ne!((a, b), (b, a));
        assert!(a != 0 && b != 0);
        assert_eq!(queues.open(&"a".into(), b"q"), Some(a), "the same queue has the same token");
        assert_eq!((queues.find(&"b".into(), b"q"), queues.find(&"c".into(), b"q")), (Some(b), None));
        queues.push(a, b"1", usize::MAX).expect("it is there");
        queues.push(a, b"2", usize::MAX).expect("it is there");
        assert_eq!(queues.pop(b), Err(Status::Empty));
        assert_eq!((queues.pop(a), queues.pop(a)), (Ok(Bytes::from("1")), Ok(Bytes::from("2"))));
        assert_eq!(
            (queues.pop(a), queues.pop(99), queues.push(0, b"", usize::MAX)),
            (Err(Status::Empty), Err(Status::NotFound), Err(Unwritten::Status(Status::NotFound)))
        );
    }

    #[test]
    fn a_scope_has_so_many_queues_and_so_many_bytes_and_takes_none_of_anothers() {
        let queues = Queues::new(Arc::default());
        let (flood, other) = (Arc::from("flood"), Arc::from("other"));
        let opened: Vec<u32> =
            (0..MOST_OF_SCOPE + 1).map_while(|n| queues.open(&flood, n.to_string().as_bytes())).collect();
        assert_eq!(opened.len(), MOST_OF_SCOPE);
        let kept = queues.open(&other, b"q").expect("room");
        let value = vec![0; 1 << 20];
        let pushed =
            opened.iter().cycle().take(100).filter(|queue| queues.push(**queue, &value, usize::MAX).is_ok());
        assert_eq!(pushed.count(), MOST_BYTES_OF_SCOPE >> 20);
        assert_eq!(queues.push(kept, &value, usize::MAX), Ok(()));
        // What is taken out makes room.
        assert_eq!(queues.pop(opened[0]).map(|value| value.len()), Ok(1 << 20));
        assert_eq!(queues.push(opened[0], &value, usize::MAX), Ok(()));
    }

    #[test]
    fn the_last_to_register_is_told_and_when_it_is_gone_the_one_before_it() {
        let queues = Queues::new(Arc::default());
        let queue = queues.open(&"a".into(), b"q").expect("room");
        let ((first, mut at_first), (second, mut at_second)) = (unbounded_channel(), unbounded_channel());
        queues.listen(queue, listener(1, first));
        queues.listen(queue, listener(2, second));
        queues.push(queue, b"1", usize::MAX).expect("it is there");
        assert_eq!(at_second.try_recv(), Ok(Ready { generation: 0, root: 1, queue }));
        assert!(at_first.try_recv().is_err());
        drop(at_second);
        queues.push(queue, b"2", usize::MAX).expect("it is there");
        assert_eq!(at_first.try_recv(), Ok(Ready { generation: 0, root: 1, queue }));
    }

    #[test]
    fn what_nobody_was_told_of_is_told_to_the_next_who_registers() {
        let queues = Queues::new(Arc::default());
        let queue = queues.open(&"a".into(), b"q").expect("room");
        queues.push(queue, b"1", usize::MAX).expect("it is there");
        let (mailbox, mut received) = unbounded_channel();
        queues.listen(queue, listener(1, mailbox));
        assert_eq!(received.try_recv(), Ok(Ready { generation: 0, root: 1, queue }));
    }

    #[test]
    fn a_value_that_was_put_back_is_the_first_to_come_out_again() {
        let queues = Queues::new(Arc::default());
        let queue = queues.open(&"a".into(), b"q").expect("room");
        queues.push(queue, b"1", usize::MAX).expect("it is there");
        let taken = queues.pop(queue).expect("it is there");
        queues.push(queue, &vec![0; MOST_BYTES], usize::MAX).expect("there is room");
        queues.put_back(queue, taken);
        assert_eq!(queues.push(queue, b"", usize::MAX), Ok(()), "nothing always fits");
        assert_eq!(queues.push(queue, b"x", usize::MAX), FULL);
        assert_eq!(queues.pop(queue), Ok(Bytes::from("1")));
    }

    #[test]
    fn listeners_that_are_gone_do_not_add_up() {
        let queues = Queues::new(Arc::default());
        let queue = queues.open(&"a".into(), b"q").expect("room");
        for vm in 0..100 {
            let (mailbox, received) = unbounded_channel();
            queues.listen(queue, listener(vm, mailbox));
            drop(received);
        }
        assert_eq!(queues.lock().get(queue).expect("it is there").listeners.len(), 1);
    }

    #[test]
    fn a_queue_that_is_full_takes_no_more_and_loses_nothing() {
        let queues = Queues::new(Arc::default());
        let queue = queues.open(&"a".into(), b"q").expect("room");
        let large = vec![0; MOST_BYTES];
        queues.push(queue, &large, usize::MAX).expect("there is room");
        assert_eq!(queues.push(queue, b"x", usize::MAX), FULL);
        assert_eq!(queues.pop(queue).map(|value| value.len()), Ok(MOST_BYTES));
        assert_eq!(queues.push(queue, b"x", usize::MAX), Ok(()));
    }

    #[test]
    fn all_scopes_together_hold_so_many_bytes_values_of_none_are_counted_and_each_queue_has_a_little() {
        let all = Arc::new(Pool::default());
        let queues = Queues::new(Arc::clone(&all));
        let (hoard, other) =
            (queues.open(&"a".into(), b"q").expect("room"), queues.open(&"b".into(), b"q").expect("room"));
        let total = 1 << 20;
        let empty = (0..MOST_VALUES).take_while(|_| queues.push(hoard, b"", total).is_ok()).count();
        assert_eq!(empty, total / ENTRY);
        let none_left = Err(Unwritten::Quota(Quota::SharedTotal));
        assert_eq!(queues.push(hoard, b"", total), none_left);
        assert_eq!(queues.push(other, &vec![0; SMALL], total), none_left);
        assert_eq!(queues.push(other, &vec![0; SMALL / 2], total), Ok(()), "a little");
        // What is taken out makes room, and what is put back takes it.
        let taken = queues.pop(other).expect("it is there");
        queues.put_back(other, taken);
        (0..empty).for_each(|_| drop(queues.pop(hoard).expect("it is there")));
        assert_eq!(queues.push(other, &vec![0; SMALL], total), Ok(()));
        assert!(!all.take(total, total), "some of it is in use");
        (0..2).for_each(|_| drop(queues.pop(other).expect("it is there")));
        assert!(all.take(total, total), "nothing is lost of it");
    }
}
