//! Tests of the tasks, by one thread after another. `tests/tasks_model.rs` has every order of threads.

use super::Tasks;
use std::cell::Cell;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

fn is_readable(tasks: &Tasks) -> bool {
    rustix::io::read(tasks.event(), &mut [0; 8]).is_ok()
}

#[test]
fn a_task_runs_once_for_several_wakes_and_again_when_it_wakes_itself() {
    let tasks = Tasks::new().unwrap();
    let runs = Rc::new(Cell::new(0));
    let counted = Rc::clone(&runs);
    tasks.spawn(poll_fn(move |context| {
        counted.set(counted.get() + 1);
        if counted.get() < 3 {
            context.waker().wake_by_ref();
            context.waker().wake_by_ref();
        }
        Poll::Pending
    }));
    for expected in [1, 2, 3, 3] {
        assert!(!tasks.run());
        assert_eq!(runs.get(), expected);
    }
    tasks.spawn(async {});
    assert!(tasks.is_woken());
    tasks.clear();
    assert_eq!(Rc::strong_count(&runs), 1);
    assert_eq!(Arc::strong_count(&tasks.shared), 1);
}

#[test]
fn a_wake_by_another_thread_ends_the_sleep() {
    let tasks = Tasks::new().unwrap();
    let main = tasks.main();
    assert!(!tasks.may_sleep());
    assert!(tasks.run() && tasks.may_sleep());
    assert!(!is_readable(&tasks));
    std::thread::spawn(move || main.wake()).join().unwrap();
    assert!(is_readable(&tasks));
    assert!(tasks.is_woken() && !tasks.may_sleep() && tasks.run());
}

#[test]
fn nobody_writes_to_the_descriptor_while_the_worker_runs() {
    let tasks = Tasks::new().unwrap();
    tasks.spawn(async {});
    tasks.run();
    assert!(tasks.may_sleep());
    tasks.awake();
    tasks.main().wake();
    assert!(!is_readable(&tasks));
}

#[test]
fn a_panic_ends_one_task() {
    let tasks = Tasks::new().unwrap();
    let ran = Rc::new(Cell::new(false));
    let runs = Rc::clone(&ran);
    tasks.spawn(async { panic!("a bug") });
    tasks.spawn(async move { runs.set(true) });
    tasks.run();
    assert!(ran.get());
    assert!(tasks.places.borrow().is_empty());
}
