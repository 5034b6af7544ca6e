//! The contract where calls give way: the same rows, through the asynchronous wrapper of the same table.

use super::{allocator, assert_right, guest, matrix, pointers, run_http_with, run_tcp_with, values};

/// One instance: the rows are about one.
const SETTINGS: &str = ", scheduling: preemptible, instances: 1";

#[tokio::test]
async fn every_function_answers_with_the_status_of_its_phase_where_calls_give_way() {
    assert_right(&run_http_with(SETTINGS, &matrix::http(), guest::SOUND).await);
    assert_right(&run_tcp_with(SETTINGS, &matrix::tcp(), guest::SOUND).await);
}

#[tokio::test]
async fn every_function_makes_the_same_of_its_arguments_where_calls_give_way() {
    for topic in values::by_topic() {
        assert_right(&run_http_with(SETTINGS, &topic, guest::SOUND).await);
    }
}

#[tokio::test]
async fn no_function_reads_or_writes_outside_of_the_guests_memory_where_calls_give_way() {
    assert_right(&run_http_with(SETTINGS, &pointers::with_data(pointers::hostile()), guest::SOUND).await);
}

#[tokio::test]
async fn an_allocator_may_fail_or_have_the_memory_grow_where_calls_give_way() {
    assert_right(&run_http_with(SETTINGS, &allocator::giving(6), "(i32.const 0)").await);
    let growing = "(i32.mul (memory.grow (i32.const 1)) (i32.const 65536))";
    assert_right(&run_http_with(SETTINGS, &allocator::giving(0), growing).await);
}

#[tokio::test]
async fn an_allocator_may_give_way_itself() {
    // Some milliseconds each time: the host function that it serves goes on when it has returned.
    let slow = format!(
        "(local $n i64) (local.set $n (i64.const 6000000))
         (block $done (loop $more
           (br_if $done (i64.eqz (local.get $n)))
           (local.set $n (i64.sub (local.get $n) (i64.const 1)))
           (br $more))) {}",
        guest::SOUND
    );
    assert_right(&run_http_with(SETTINGS, &allocator::giving(0), &slow).await);
}
