//! What is in the place of clusters: answers that were written down, and a list of the calls that were made.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;

use crate::clock::Timers;
use crate::config::section::section;
use crate::config::value::Spanned;
use crate::plugin::fiber::Turns;
use crate::plugin::filter::{Account, GrpcEvent, GrpcSender, PluginHost, VmCell, VmSpec};
use crate::plugin::instance::Instance;
use crate::plugin::vm::{CallAnswer, GrpcOpen, HttpCall};
use crate::testbed::message::{Body, Headers};
use crate::testbed::seen::{SeenCall, SeenRequest};

section! {
    /// What a cluster answers to calls.
    pub struct Call {
        /// The cluster.
        cluster: Spanned<String>,
        /// Only calls with this method.
        method: Option<String>,
        /// Only calls with this path, without its query.
        path: Option<String>,
        /// Only gRPC calls of this service and method, as in `pkg.Service/Method`.
        grpc: Option<String>,
        /// How many calls are answered so; all, without it.
        times: Option<u32>,
        /// The answer.
        answer: CallReply = "",
    }
}

section! {
    /// The answer to a call.
    pub struct CallReply {
        /// The status.
        status: Spanned<u16> = "200",
        /// Headers, or the initial metadata of a gRPC call.
        headers: Headers = "",
        /// The body; for a gRPC call its messages, one for each piece.
        body: Body = "",
        /// Trailers, or the trailing metadata of a gRPC call.
        trailers: Headers = "",
        /// The status of a gRPC call.
        grpc_status: u32 = "0",
        /// What that says.
        grpc_message: String = "",
        /// How long it takes. A call whose own time limit is shorter is not answered.
        after: Duration = "0ms",
        /// Whether there is no answer: the connection fails.
        fails: bool = "false",
    }
}

impl Call {
    /// Whether it is for a request to a cluster, when it was for `used` requests before.
    pub fn fits(&self, cluster: &str, request: &SeenRequest, grpc: Option<&str>, used: u32) -> bool {
        *self.cluster.value == *cluster
            && self.times.is_none_or(|times| used < times)
            && self.method.as_ref().is_none_or(|method| *method == request.method)
            && self.path.as_deref().is_none_or(|wanted| Some(wanted) == request.path.split('?').next())
            && self.grpc.as_deref().is_none_or(|wanted| Some(wanted) == grpc)
    }
}

/// The worker, as the plugins of a bed see it.
pub struct Answers {
    timers: Rc<Timers>,
    turns: Turns,
    planned: RefCell<Vec<(Call, Cell<u32>)>>,
    made: RefCell<Vec<Rc<RefCell<SeenCall>>>>,
    unanswered: RefCell<Vec<String>>,
    condemned: RefCell<Vec<Arc<VmSpec>>>,
}

impl Answers {
    /// Answers by a clock.
    pub fn new(timers: &Rc<Timers>) -> Self {
        Self {
            timers: Rc::clone(timers),
            turns: Turns::default(),
            planned: RefCell::default(),
            made: RefCell::default(),
            unanswered: RefCell::default(),
            condemned: RefCell::default(),
        }
    }

    /// Plans an answer, behind those that are planned.
    pub fn plan(&self, call: Call) {
        self.planned.borrow_mut().push((call, Cell::new(0)));
    }

    /// The calls that were made since this was last asked, and what of them there was no answer for.
    pub fn take(&self) -> (Vec<SeenCall>, Vec<String>) {
        let made = self.made.take().into_iter().map(|call| call.borrow().clone()).collect();
        (made, self.unanswered.take())
    }

    /// The VMs whose instances have failed since this was last asked.
    pub fn take_condemned(&self) -> Vec<Arc<VmSpec>> {
        self.condemned.take()
    }

    /// The answer to a call.
    fn find(&self, cluster: &str, request: &SeenRequest, grpc: Option<&str>) -> Option<CallReply> {
        let planned = self.planned.borrow();
        let fitting = planned.iter().find(|(call, used)| call.fits(cluster, request, grpc, used.get()));
        if let Some((call, used)) = fitting {
            used.set(used.get() + 1);
            return Some(call.answer.clone());
        }
        let what = match grpc {
            Some(method) => format!("gRPC {method}"),
            None => format!("{} {}", request.method, request.path),
        };
        self.unanswered.borrow_mut().push(format!("{what} to cluster `{cluster}`"));
        None
    }

    fn note(&self, call: SeenCall) -> Rc<RefCell<SeenCall>> {
        let call = Rc::new(RefCell::new(call));
        self.made.borrow_mut().push(Rc::clone(&call));
        call
    }

    /// Waits on the clock of the bed.
    fn wait(&self, time: Duration) -> impl Future<Output = ()> + use<> {
        let timer = self.timers.timer();
        timer.set(time);
        async move {
            if !time.is_zero() {
                timer.limit(std::future::pending::<()>()).await;
            }
        }
    }
}

impl PluginHost for Answers {
    fn http_call(&self, call: HttpCall, account: Account, then: Box<dyn FnOnce(Option<CallAnswer>)>) {
        let mut request = SeenRequest::of(&call.request);
        (request.body, request.trailers) = (call.body.to_vec(), call.trailers);
        let answer = self.find(&call.cluster, &request, None);
        self.note(SeenCall { cluster: call.cluster.to_string(), grpc: None, request });
        let takes = answer.as_ref().map_or(Duration::ZERO, |answer| answer.after);
        let late = call.timeout.is_some_and(|timeout| takes > timeout);
        let wait = self.wait(call.timeout.filter(|_| late).unwrap_or(takes));
        let answer = answer.filter(|answer| !late && !answer.fails).map(|answer| CallAnswer {
            status: StatusCode::from_u16(answer.status.value).ok(),
            headers: answer.headers.0,
            body: answer.body.whole(),
            trailers: answer.trailers.0,
        });
        tokio::task::spawn_local(async move {
            account.charge(wait).await;
            then(answer);
        });
    }

    fn grpc(&self, open: GrpcOpen, _: Account, then: Box<dyn Fn(GrpcEvent)>) -> Box<dyn GrpcSender> {
        let mut request = SeenRequest::of(&open.request);
        request.body = open.message.as_deref().unwrap_or_default().to_vec();
        let method = request.path.trim_start_matches('/').to_owned();
        let answer = self.find(&open.cluster, &request, Some(&method));
        let made = self.note(SeenCall { cluster: open.cluster.to_string(), grpc: Some(method), request });
        let takes = answer.as_ref().map_or(Duration::ZERO, |answer| answer.after);
        let late = open.timeout.is_some_and(|timeout| takes > timeout);
        let wait = self.wait(open.timeout.filter(|_| late).unwrap_or(takes));
        let answering = tokio::task::spawn_local(async move {
            wait.await;
            match answer {
                _ if late => closed(&then, DEADLINE_EXCEEDED, "the call's time is up"),
                Some(answer) if !answer.fails => bring(&then, answer),
                Some(_) | None => closed(&then, UNAVAILABLE, "the cluster cannot be reached"),
            }
        });
        Box::new(Stream { made, answering: answering.abort_handle() })
    }

    fn condemned(&self, vm: &Arc<VmSpec>) {
        self.condemned.borrow_mut().push(Arc::clone(vm));
    }

    fn stream_failed(&self, _: &Arc<VmSpec>) {}

    fn linger(&self, vm: Rc<VmCell>) {
        vm.end();
    }

    fn retire(&self, instance: Box<Instance>) {
        drop(instance);
    }

    fn turns(&self) -> &Turns {
        &self.turns
    }

    fn sleep(&self, period: Duration) -> Pin<Box<dyn Future<Output = ()>>> {
        Box::pin(self.wait(period))
    }
}

/// gRPC's DEADLINE_EXCEEDED and UNAVAILABLE.
const DEADLINE_EXCEEDED: u32 = 4;
const UNAVAILABLE: u32 = 14;

fn closed(then: &dyn Fn(GrpcEvent), status: u32, message: &str) {
    then(GrpcEvent::Closed { status, message: message.to_owned() });
}

/// All that an answer brings.
fn bring(then: &dyn Fn(GrpcEvent), answer: CallReply) {
    then(GrpcEvent::Initial(answer.headers.0));
    answer.body.0.into_iter().for_each(|message| then(GrpcEvent::Message(message)));
    then(GrpcEvent::Trailing(answer.trailers.0));
    closed(then, answer.grpc_status, &answer.grpc_message);
}

/// The guest's half of a gRPC call.
struct Stream {
    made: Rc<RefCell<SeenCall>>,
    answering: tokio::task::AbortHandle,
}

impl GrpcSender for Stream {
    fn send(&self, message: Option<Bytes>, _: bool) {
        if let Some(message) = message {
            self.made.borrow_mut().request.body.extend_from_slice(&message);
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.answering.abort();
    }
}
