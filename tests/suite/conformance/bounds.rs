//! What a guest may have the host keep, in one process with it: so many calls and bytes, and no more.

use std::sync::LazyLock;

use weir::plugin::vm::CallAnswer;
use weir_tests::trampoline::{ARENA, Allocator, Call, MOST_CALLS, ROOTS, Trampoline, World};

static WORLD: LazyLock<World> = LazyLock::new(World::new);

const OK: u32 = 0;
const FAILED: u32 = 10;

/// A map that is a request, at [`ARENA`]; behind it a name, and room for results.
const REQUEST: u64 = ARENA as u64;
const UP: u64 = REQUEST + 0x100;
const RESULT: u64 = REQUEST + 0x200;
const BODY: u64 = REQUEST + 0x1000;

fn guest() -> Trampoline {
    let mut guest = WORLD.start();
    let memory = guest.memory();
    memory[REQUEST as usize..][..super::values::REQUEST.len()].copy_from_slice(super::values::REQUEST);
    memory[UP as usize..][..2].copy_from_slice(b"up");
    guest
}

fn http_call(body: u64) -> Call {
    let request = super::values::REQUEST.len() as u64;
    Call::new("proxy_http_call", &[UP, 2, REQUEST, request, BODY, body, 0, 0, 0, RESULT])
}

fn send(token: u32, len: u64) -> Call {
    Call::new("proxy_grpc_send", &[token.into(), BODY, len, 0])
}

fn stream() -> Call {
    Call::new("proxy_grpc_stream", &[UP, 2, UP, 2, UP, 2, 0, 0, RESULT])
}

/// Makes a call in the name of a plugin, and says what it answered.
fn make(guest: &mut Trampoline, call: &Call) -> u32 {
    guest.make(ROOTS[0], Allocator::Sound, std::slice::from_ref(call)).expect("no fault")[0]
}

/// Makes a call until it is refused, and says how often it was not. It is refused for the bound, and soon enough.
fn until_refused(guest: &mut Trampoline, call: &Call, most: usize) -> usize {
    let mut made = 0;
    while made <= most {
        match make(guest, call) {
            OK => made += 1,
            status => {
                assert_eq!(status, FAILED);
                return made;
            }
        }
    }
    panic!("{made} were taken");
}

#[test]
fn http_calls_under_way_hold_so_many_bytes_and_one_that_ends_makes_room() {
    let mut guest = guest();
    let body = 48 << 10;
    let each = body as usize + super::values::REQUEST.len();
    assert_eq!(until_refused(&mut guest, &http_call(body), 4096), (16 << 20) / each);
    // Another plugin of the VM has room of its own.
    assert_eq!(guest.make(ROOTS[1], Allocator::Sound, &[http_call(body)]).expect("no fault"), [OK]);
    guest.instance.set_answer(ROOTS[0], Some((1, CallAnswer::default())));
    assert_eq!((make(&mut guest, &http_call(body)), make(&mut guest, &http_call(body))), (OK, FAILED));
}

#[test]
fn messages_that_wait_are_so_many_bytes_on_a_grpc_stream_and_on_all_of_them() {
    let mut guest = guest();
    let message = 64 << 10;
    let mut all = 0;
    for token in 1..=5 {
        assert_eq!(make(&mut guest, &stream()), OK);
        let taken = until_refused(&mut guest, &send(token, message), 64);
        assert!((1..64).contains(&taken) || token == 5, "{taken} on one stream");
        all += taken;
    }
    assert!((200..256).contains(&all), "{all} on all streams");
    // One that is given up makes room for the messages of another.
    assert_eq!(make(&mut guest, &Call::new("proxy_grpc_cancel", &[1])), OK);
    assert_eq!(make(&mut guest, &send(5, message)), OK);
}

#[test]
fn messages_with_nothing_in_them_are_not_without_end_either() {
    let mut guest = guest();
    assert_eq!(make(&mut guest, &stream()), OK);
    assert_eq!(until_refused(&mut guest, &send(1, 0), 1 << 17), 1 << 16);
}

#[test]
fn grpc_calls_that_are_given_up_at_once_are_never_begun() {
    let mut guest = guest();
    let mut calls = Vec::new();
    for token in 1..=u64::try_from(MOST_CALLS / 4).expect("a small number") {
        let (send, cancel) = (send(token as u32, 1), Call::new("proxy_grpc_cancel", &[token]));
        calls.extend([stream(), send, cancel.clone(), cancel]);
    }
    let statuses = guest.make(ROOTS[0], Allocator::Sound, &calls).expect("no fault");
    assert_eq!(statuses, [OK, OK, OK, 1].repeat(MOST_CALLS / 4), "given up once and for all");
    assert!(guest.instance.take_outgoing().is_empty());
    // One that was begun before is ended.
    assert_eq!(make(&mut guest, &stream()), OK);
    assert_eq!(guest.instance.take_outgoing().len(), 1);
    let last = u64::try_from(MOST_CALLS / 4 + 1).expect("a small number");
    assert_eq!(make(&mut guest, &Call::new("proxy_grpc_cancel", &[last])), OK);
    assert_eq!(guest.instance.take_outgoing().len(), 1);
}

#[test]
fn a_queue_that_is_registered_many_times_in_one_callback_is_told_of_once() {
    let mut guest = guest();
    let register = Call::new("proxy_register_shared_queue", &[UP, 2, RESULT]);
    let statuses = guest.make(ROOTS[0], Allocator::Sound, &vec![register; 20]).expect("no fault");
    assert_eq!(statuses, [OK; 20]);
    assert_eq!(guest.instance.take_outgoing().len(), 1);
}

#[test]
fn a_value_that_the_allocator_has_no_room_for_stays_in_its_queue_and_is_still_the_first() {
    let mut guest = guest();
    let push = |len| Call::new("proxy_enqueue_shared_queue", &[1, UP, len]);
    let pop = Call::new("proxy_dequeue_shared_queue", &[1, RESULT, RESULT + 8]);
    for call in [Call::new("proxy_register_shared_queue", &[UP, 2, RESULT]), push(2), push(1)] {
        assert_eq!(make(&mut guest, &call), OK);
    }
    for refuses in [Allocator::Gives(0), Allocator::Gives(u32::MAX)] {
        let status = guest.make(ROOTS[0], refuses, std::slice::from_ref(&pop)).expect("no fault");
        assert_eq!(status, [6]);
    }
    for len in [2, 1] {
        assert_eq!(make(&mut guest, &pop), OK);
        assert_eq!(weir_tests::trampoline::int(guest.memory(), RESULT as usize + 8), len);
    }
    assert_eq!(make(&mut guest, &pop), 7);
}

#[test]
fn shared_data_is_so_many_bytes_and_what_is_there_stays() {
    let mut guest = guest();
    let value = 64 << 10;
    let set = |key: u64, len| Call::new("proxy_set_shared_data", &[REQUEST, key, BODY, len, 0]);
    let mut taken = 0;
    for key in 1..=2048_u32 {
        let at = RESULT as usize;
        guest.memory()[at..at + 4].copy_from_slice(&key.to_le_bytes());
        let call = Call::new("proxy_set_shared_data", &[RESULT, 4, BODY, value, 0]);
        match make(&mut guest, &call) {
            OK => taken += 1,
            status => assert_eq!(status, FAILED),
        }
    }
    assert_eq!(taken, (64 << 20) / (value + 4));
    let get = Call::new("proxy_get_shared_data", &[REQUEST, 1, RESULT, RESULT + 8, RESULT + 16]);
    assert_eq!(make(&mut guest, &set(1, 1)), OK, "a small one still fits");
    assert_eq!(make(&mut guest, &get), OK);
}
