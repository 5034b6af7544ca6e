//! What a plugin asks for and hears of besides its streams: timers, HTTP calls, gRPC, queues, its end.

use std::cell::Cell;
use std::rc::Rc;

use bytes::Bytes;
use http::HeaderMap;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use wasmtime::{WasmParams, WasmResults};

use crate::plugin::filter::{GrpcSender, VmCell, Which};
use crate::plugin::instance::Instance;
use crate::plugin::queues::{Listener, Ready};
use crate::plugin::vm::{CallAnswer, GrpcOpen, HttpCall, Root};

/// What a gRPC call brings, in this order; [`GrpcEvent::Closed`] is the last.
#[derive(Debug)]
pub enum GrpcEvent {
    /// The initial metadata.
    Initial(HeaderMap),
    /// A message.
    Message(Bytes),
    /// The trailing metadata.
    Trailing(HeaderMap),
    /// It ended.
    Closed {
        /// The gRPC status.
        status: u32,
        /// What it says.
        message: String,
    },
}

/// A gRPC call that is under way.
pub(super) struct Grpc {
    pub(super) sender: Box<dyn GrpcSender>,
    /// Whether it is one message for one message.
    unary: bool,
    /// What its messages that wait for their turn weigh.
    waiting: Rc<Cell<usize>>,
    /// The answer to a unary call, until the call has ended well.
    answer: Option<Bytes>,
}

/// Where a VM hears of queues.
pub(super) struct Mailbox {
    sender: UnboundedSender<Ready>,
    reader: AbortHandle,
}

impl Drop for Mailbox {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// Numbers that a guest is told are 32 bits wide.
fn count(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

impl VmCell {
    pub(super) fn start_call(&self, call: HttpCall) {
        let (me, generation, root, token) = (self.me.clone(), self.generation(), call.root, call.token);
        let then = move |answer: Option<CallAnswer>| match me.upgrade() {
            Some(cell) if cell.may_go_on() => cell.call_answered(generation, root, token, answer),
            // Calls that bring calls would be a way around the budget.
            Some(_) => drop(tokio::task::spawn_local(async move {
                if let Some(cell) = Self::when_it_may_go_on(me).await {
                    cell.call_answered(generation, root, token, answer);
                }
            })),
            None => {}
        };
        self.host.http_call(call, self.account(root), Box::new(then));
    }

    pub(super) fn open_grpc(&self, open: GrpcOpen) {
        let (me, generation, root, token) = (self.me.clone(), self.generation(), open.root, open.token);
        let unary = open.message.is_some();
        let then = move |event: GrpcEvent| {
            if let Some(cell) = me.upgrade() {
                cell.grpc_event(generation, root, token, event);
            }
        };
        let sender = self.host.grpc(open, self.account(root), Box::new(then));
        self.grpc.borrow_mut().insert(token, Grpc { sender, unary, waiting: Rc::default(), answer: None });
    }

    /// Has a plugin told of a queue, wherever something is put into it.
    pub(super) fn listen(&self, root: u32, queue: u32) {
        let mut mailbox = self.mailbox.borrow_mut();
        let mailbox = mailbox.get_or_insert_with(|| {
            let (sender, receiver) = unbounded_channel();
            let reader = tokio::task::spawn_local(read_mail(self.me.clone(), receiver)).abort_handle();
            Mailbox { sender, reader }
        });
        let (vm, generation) = (self.spec.id, self.generation());
        let listener = Listener { vm, generation, root, mailbox: mailbox.sender.clone() };
        self.spec.services.queues.listen(queue, listener);
    }

    /// Runs the timer of a root context, as long as its interval stays the same.
    pub(super) fn start_timer(&self, root: u32) {
        let generation = self.generation();
        let period = self.with(generation, |instance| Ok(instance.tick(root))).ok().flatten();
        let Some((period, serial)) = period else { return };
        let me = self.me.clone();
        tokio::task::spawn_local(async move {
            loop {
                let Some(ticked) = me.upgrade().map(|cell| cell.host.sleep(period)) else { return };
                ticked.await;
                let Some(cell) = me.upgrade() else { return };
                let is_current = move |instance: &mut Instance| instance.tick(root) == Some((period, serial));
                let current = cell.is_calling() || cell.with(generation, |i| Ok(is_current(i))) == Ok(true);
                if !current {
                    return;
                }
                if !cell.admits_tick(root) {
                    continue;
                }
                let told = cell.tell(
                    generation,
                    root,
                    is_current,
                    |callbacks| &callbacks.proxy_on_tick,
                    (root,),
                    |_| {},
                );
                drop(cell);
                // One that waits for its turn is not waited for by another.
                if !told.done().await {
                    return;
                }
            }
        });
    }

    /// Tells a plugin something, now or, where calls give way, at its turn. `show` lays before it what it is told of, and
    /// may find that there is nothing to tell; `hide` takes that away again.
    fn tell<P, R>(
        &self,
        generation: u64,
        root: u32,
        show: impl FnOnce(&mut Instance) -> bool + 'static,
        which: Which<P, R>,
        params: P,
        hide: impl FnOnce(&mut Instance) + 'static,
    ) -> Told
    where
        P: WasmParams + Sync + 'static,
        R: WasmResults + Sync + 'static,
    {
        let Some(limit) = self.limit(root) else { return Told::Now(false) };
        let is_there = move |instance: &mut Instance| {
            instance.root(root).is_some_and(|root| !root.deleted) && show(instance)
        };
        if !self.is_preemptible() {
            let told = self.with(generation, |instance| {
                if !is_there(instance) {
                    return Ok(false);
                }
                let told = instance.call(root, limit, which, params);
                hide(instance);
                told.map(|_| true)
            });
            return Told::Now(told.unwrap_or(false));
        }
        let (told, receiver) = oneshot::channel();
        let work = async move |instance: &mut Instance| {
            let there = is_there(instance);
            if there {
                let told = instance.call_on_fiber(root, limit, which, params).await;
                hide(instance);
                told?;
            }
            // Not everybody wants to know.
            let _ = told.send(there);
            Ok(())
        };
        self.queue(generation, work);
        Told::Later(receiver)
    }

    /// Tells the guest how a call ended: with an answer, or, all zeros, without.
    fn call_answered(&self, generation: u64, root: u32, token: u32, answer: Option<CallAnswer>) {
        let counts = match &answer {
            Some(answer) => {
                (count(answer.headers.len() + 1), count(answer.body.len()), count(answer.trailers.len()))
            }
            None => (0, 0, 0),
        };
        let show = move |instance: &mut Instance| {
            instance.set_answer(root, Some((token, answer.unwrap_or_default())));
            true
        };
        let params = (root, token, counts.0, counts.1, counts.2);
        let hide = move |instance: &mut Instance| instance.set_answer(root, None);
        self.tell(generation, root, show, |callbacks| &callbacks.proxy_on_http_call_response, params, hide);
    }

    /// Tells the guest what a gRPC call has brought. Of a unary call it hears the answer, or else why there is none.
    fn grpc_event(&self, generation: u64, root: u32, token: u32, event: GrpcEvent) {
        // One that the guest has given up brings nothing.
        let Some(unary) = self.grpc.borrow().get(&token).map(|call| call.unary) else { return };
        let call = GrpcTold { generation, root, token };
        let swamped = matches!(event, GrpcEvent::Message(_)) && self.is_swamped(token);
        let event = if swamped {
            let message = "the plugin does not keep up".to_owned();
            GrpcEvent::Closed { status: RESOURCE_EXHAUSTED, message }
        } else {
            event
        };
        match event {
            GrpcEvent::Initial(_) | GrpcEvent::Trailing(_) if unary => {}
            GrpcEvent::Message(message) if unary => {
                if let Some(call) = self.grpc.borrow_mut().get_mut(&token) {
                    call.answer = Some(message);
                }
            }
            GrpcEvent::Initial(metadata) => {
                let params = (root, token, count(metadata.len()));
                let show = |root: &mut Root| root.grpc.initial = Some(metadata);
                self.tell_grpc(call, false, show, |c| &c.proxy_on_grpc_receive_initial_metadata, params);
            }
            GrpcEvent::Trailing(metadata) => {
                let params = (root, token, count(metadata.len()));
                let show = |root: &mut Root| root.grpc.trailing = Some(metadata);
                self.tell_grpc(call, false, show, |c| &c.proxy_on_grpc_receive_trailing_metadata, params);
            }
            GrpcEvent::Message(message) => self.grpc_message(call, false, message),
            GrpcEvent::Closed { status, message } => {
                let answer = self.grpc.borrow_mut().get_mut(&token).and_then(|call| call.answer.take());
                match answer {
                    Some(answer) if status == 0 => self.grpc_message(call, true, answer),
                    _ => {
                        let status = if unary && status == 0 { INTERNAL } else { status };
                        let show = move |root: &mut Root| root.status = (status, message);
                        let params = (root, token, status);
                        self.tell_grpc(call, true, show, |c| &c.proxy_on_grpc_close, params);
                    }
                }
                self.grpc.borrow_mut().remove(&token);
            }
        }
    }

    /// Whether so much waits of a call's messages that it is given up: their order is the stream's, and none is left out.
    fn is_swamped(&self, token: u32) -> bool {
        self.grpc.borrow().get(&token).is_some_and(|call| call.waiting.get() > MOST_WAITING)
    }

    fn grpc_message(&self, call: GrpcTold, last: bool, message: Bytes) {
        let params = (call.root, call.token, count(message.len()));
        let weight = GrpcOpen::weight(&message);
        let waiting = self.grpc.borrow().get(&call.token).map(|call| Rc::clone(&call.waiting));
        let waiting = waiting.unwrap_or_default();
        waiting.set(waiting.get() + weight);
        let show = move |root: &mut Root| {
            waiting.set(waiting.get() - weight);
            root.grpc.message = Some(message);
        };
        self.tell_grpc(call, last, show, |c| &c.proxy_on_grpc_receive, params);
    }

    /// Lays something before a plugin for as long as it is told of it. The call is known as long as its end is being
    /// told, which is `last`.
    fn tell_grpc<P, R>(
        &self,
        GrpcTold { generation, root, token }: GrpcTold,
        last: bool,
        show: impl FnOnce(&mut Root) + 'static,
        which: Which<P, R>,
        params: P,
    ) where
        P: WasmParams + Sync + 'static,
        R: WasmResults + Sync + 'static,
    {
        // The guest may have given the call up while this waited for its turn.
        let show = move |instance: &mut Instance| {
            let root = instance.root(root).filter(|root| root.grpc.calls.contains_key(&token));
            root.map(show).is_some()
        };
        let hide = move |instance: &mut Instance| {
            if let Some(root) = instance.root(root) {
                (root.grpc.message, root.grpc.initial, root.grpc.trailing) = (None, None, None);
                root.status = (0, String::new());
                if last {
                    root.grpc.calls.remove(&token);
                }
            }
        };
        self.tell(generation, root, show, which, params, hide);
    }
}

/// Which gRPC call a plugin is told of.
#[derive(Debug, Clone, Copy)]
struct GrpcTold {
    generation: u64,
    root: u32,
    token: u32,
}

/// Whether a plugin was there to be told.
enum Told {
    Now(bool),
    Later(oneshot::Receiver<bool>),
}

impl Told {
    async fn done(self) -> bool {
        match self {
            Self::Now(told) => told,
            Self::Later(told) => told.await.unwrap_or(false),
        }
    }
}

/// The most that the messages of a gRPC call weigh that wait for their turn.
const MOST_WAITING: usize = 1 << 20;

/// gRPC's RESOURCE_EXHAUSTED.
const RESOURCE_EXHAUSTED: u32 = 8;

/// gRPC's INTERNAL: a unary call that ended well without an answer did not.
const INTERNAL: u32 = 13;

async fn read_mail(cell: std::rc::Weak<VmCell>, mut mail: UnboundedReceiver<Ready>) {
    while let Some(Ready { generation, root, queue }) = mail.recv().await {
        let Some(cell) = VmCell::when_it_may_go_on(cell.clone()).await else { return };
        let params = (root, queue);
        let told = cell.tell(
            generation,
            root,
            |_| true,
            |callbacks| &callbacks.proxy_on_queue_ready,
            params,
            |_| {},
        );
        drop(cell);
        told.done().await;
    }
}
