//! What a plugin asks for and hears of besides its streams: timers, HTTP calls, gRPC, queues, its end.

use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::AbortHandle;

use crate::plugin::filter::{GrpcSender, VmCell};
use crate::plugin::instance::{Fault, Instance};
use crate::plugin::queues::{Listener, Ready};
use crate::plugin::vm::{CallAnswer, GrpcOpen, HttpCall, Outgoing, Root};

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
    sender: Box<dyn GrpcSender>,
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
    pub(super) fn carry_out(&self, outgoing: Vec<Outgoing>) {
        for item in outgoing.into_iter().filter(|item| !self.is_of_worker(item)) {
            match item {
                Outgoing::Tick { root } => self.start_timer(root),
                Outgoing::Call(call) => self.start_call(*call),
                Outgoing::GrpcOpen(open) => self.open_grpc(*open),
                Outgoing::GrpcSend { token, message, end } => {
                    if let Some(call) = self.grpc.borrow().get(&token) {
                        call.sender.send(message, end);
                    }
                }
                Outgoing::GrpcCancel { token } => drop(self.grpc.borrow_mut().remove(&token)),
                Outgoing::Listen { root, queue } => self.listen(root, queue),
                Outgoing::Done { root } => self.done(root),
            }
        }
    }

    fn start_call(&self, call: HttpCall) {
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
        self.host.http_call(call, Box::new(then));
    }

    fn open_grpc(&self, open: GrpcOpen) {
        let (me, generation, root, token) = (self.me.clone(), self.generation(), open.root, open.token);
        let then = move |event: GrpcEvent| {
            if let Some(cell) = me.upgrade() {
                cell.grpc_event(generation, root, token, event);
            }
        };
        let sender = self.host.grpc(open, Box::new(then));
        self.grpc.borrow_mut().insert(token, Grpc { sender, answer: None });
    }

    /// Has a plugin told of a queue, wherever something is put into it.
    fn listen(&self, root: u32, queue: u32) {
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
    fn start_timer(&self, root: u32) {
        let generation = self.generation();
        let period = self.with(generation, |instance| Ok(instance.tick(root))).ok().flatten();
        let Some((period, serial)) = period else { return };
        let me = self.me.clone();
        tokio::task::spawn_local(async move {
            loop {
                tokio::time::sleep(period).await;
                let Some(cell) = me.upgrade() else { return };
                let current = cell.with(generation, |instance| Ok(instance.tick(root))).ok().flatten();
                if current != Some((period, serial)) {
                    return;
                }
                if !cell.admits_tick(root) {
                    continue;
                }
                let ticked = cell.tell(generation, root, |instance, limit| {
                    instance.call(root, limit, |callbacks| &callbacks.proxy_on_tick, (root,)).map(drop)
                });
                if !ticked {
                    return;
                }
            }
        });
    }

    /// Tells a plugin something. False when it is not there to be told any more.
    fn tell(
        &self,
        generation: u64,
        root: u32,
        event: impl FnOnce(&mut Instance, Duration) -> Result<(), Fault>,
    ) -> bool {
        let Some(limit) = self.limit(root) else { return false };
        let told = self.with(generation, |instance| {
            if instance.root(root).is_none_or(|root| root.deleted) {
                return Ok(false);
            }
            event(instance, limit).map(|()| true)
        });
        told.unwrap_or(false)
    }

    /// Tells the guest how a call ended: with an answer, or, all zeros, without.
    fn call_answered(&self, generation: u64, root: u32, token: u32, answer: Option<CallAnswer>) {
        self.tell(generation, root, |instance, limit| {
            let counts = match &answer {
                Some(answer) => {
                    (count(answer.headers.len() + 1), count(answer.body.len()), count(answer.trailers.len()))
                }
                None => (0, 0, 0),
            };
            instance.set_answer(root, Some((token, answer.unwrap_or_default())));
            let params = (root, token, counts.0, counts.1, counts.2);
            let told = instance.call(root, limit, |callbacks| &callbacks.proxy_on_http_call_response, params);
            instance.set_answer(root, None);
            told.map(drop)
        });
    }

    /// Tells the guest what a gRPC call has brought. Of a unary call it hears the answer, or else why there is none.
    fn grpc_event(&self, generation: u64, root: u32, token: u32, event: GrpcEvent) {
        let unary = self.with(generation, |instance| {
            let calls = instance.root(root).map(|root| &mut root.grpc.calls);
            Ok(calls.and_then(|calls| calls.get(&token).map(|call| call.unary)))
        });
        // One that the guest has given up brings nothing.
        let Ok(Some(unary)) = unary else { return };
        match event {
            GrpcEvent::Initial(_) | GrpcEvent::Trailing(_) if unary => {}
            GrpcEvent::Message(message) if unary => {
                if let Some(call) = self.grpc.borrow_mut().get_mut(&token) {
                    call.answer = Some(message);
                }
            }
            GrpcEvent::Initial(metadata) => {
                let params = (root, token, count(metadata.len()));
                self.tell_grpc(
                    generation,
                    root,
                    |root| root.grpc.initial = Some(metadata),
                    |instance, limit| {
                        instance.call(root, limit, |c| &c.proxy_on_grpc_receive_initial_metadata, params)
                    },
                );
            }
            GrpcEvent::Trailing(metadata) => {
                let params = (root, token, count(metadata.len()));
                self.tell_grpc(
                    generation,
                    root,
                    |root| root.grpc.trailing = Some(metadata),
                    |instance, limit| {
                        instance.call(root, limit, |c| &c.proxy_on_grpc_receive_trailing_metadata, params)
                    },
                );
            }
            GrpcEvent::Message(message) => self.grpc_message(generation, root, token, message),
            GrpcEvent::Closed { status, message } => {
                let answer = self.grpc.borrow_mut().get_mut(&token).and_then(|call| call.answer.take());
                match answer {
                    Some(answer) if status == 0 => self.grpc_message(generation, root, token, answer),
                    _ => self.grpc_closed(
                        generation,
                        root,
                        token,
                        if unary && status == 0 { INTERNAL } else { status },
                        message,
                    ),
                }
                // It is known as long as its end is being told.
                self.grpc.borrow_mut().remove(&token);
                let _ = self.with(generation, |instance| {
                    Ok(instance.root(root).map(|root| root.grpc.calls.remove(&token)))
                });
            }
        }
    }

    fn grpc_closed(&self, generation: u64, root: u32, token: u32, status: u32, message: String) {
        let params = (root, token, status);
        self.tell_grpc(
            generation,
            root,
            |root| root.status = (status, message),
            |instance, limit| instance.call(root, limit, |c| &c.proxy_on_grpc_close, params),
        );
    }

    fn grpc_message(&self, generation: u64, root: u32, token: u32, message: Bytes) {
        let params = (root, token, count(message.len()));
        self.tell_grpc(
            generation,
            root,
            |root| root.grpc.message = Some(message),
            |instance, limit| instance.call(root, limit, |c| &c.proxy_on_grpc_receive, params),
        );
    }

    /// Lays something before a plugin for as long as it is told of it.
    fn tell_grpc<R>(
        &self,
        generation: u64,
        root: u32,
        show: impl FnOnce(&mut Root),
        call: impl FnOnce(&mut Instance, Duration) -> Result<R, Fault>,
    ) {
        self.tell(generation, root, |instance, limit| {
            if let Some(root) = instance.root(root) {
                show(root);
            }
            let told = call(instance, limit);
            if let Some(root) = instance.root(root) {
                (root.grpc.message, root.grpc.initial, root.grpc.trailing) = (None, None, None);
                root.status = (0, String::new());
            }
            told.map(drop)
        });
    }
}

/// gRPC's INTERNAL: a unary call that ended well without an answer did not.
const INTERNAL: u32 = 13;

async fn read_mail(cell: std::rc::Weak<VmCell>, mut mail: UnboundedReceiver<Ready>) {
    while let Some(Ready { generation, root, queue }) = mail.recv().await {
        let Some(cell) = VmCell::when_it_may_go_on(cell.clone()).await else { return };
        cell.tell(generation, root, |instance, limit| {
            instance.call(root, limit, |callbacks| &callbacks.proxy_on_queue_ready, (root, queue)).map(drop)
        });
    }
}
