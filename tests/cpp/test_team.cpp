// The thread team: really n threads, many callers at once, sleep, denormals.
#include "team.hpp"

#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <thread>

#include "check.hpp"
#include "tidegate/runtime.hpp"

namespace {

constexpr double kWork = 1e6;

// Every thread adds its number; a barrier between, so that all must really be there at once.
bool team_is_complete(int threads) {
  std::atomic<int> before{0}, seen_all{0}, total{0};
  tidegate::parallel(threads, kWork, [&](int thread, int count, tidegate::Barrier* barrier) {
    total = count;
    before.fetch_add(1 + thread);
    if (count > 1) tidegate::barrier_wait(barrier);
    if (before == count * (count + 1) / 2) seen_all.fetch_add(1);
    if (count > 1) tidegate::barrier_wait(barrier);
  });
  return seen_all == total && total >= 1;
}

}  // namespace

TEST(as_many_threads_as_asked_for) {
  tidegate::set_parallel_threshold(0);  // everybody is waited for
  for (int threads : {1, 2, 3, 7, 16}) {
    int got = 0;
    tidegate::parallel(threads, kWork, [&](int thread, int count, tidegate::Barrier*) {
      if (thread == 0) got = count;
    });
    CHECK(got == threads);
    for (int i = 0; i < 50; ++i) CHECK(team_is_complete(threads));
  }
}

TEST(who_does_not_show_up_is_not_waited_for) {
  tidegate::set_parallel_threshold(1);
  for (int threads : {2, 3, 7})
    for (int i = 0; i < 300; ++i) {
      std::atomic<int> ran{0};
      int of = 0;
      tidegate::parallel(threads, kWork, [&](int thread, int count, tidegate::Barrier* barrier) {
        ran.fetch_add(1);
        if (thread == 0) of = count;
        if (count > 1) tidegate::barrier_wait(barrier);
      });
      CHECK(ran == of && of >= 1 && of <= threads);
      if (i % 50 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
  tidegate::set_parallel_threshold(0);
}

// Two jobs of several threads that meet in the job's barrier only, one of them once more often.
bool two_jobs_are_done(int max_threads) {
  std::atomic<int> ran[2]{}, there[2]{}, seen_all{0}, total{0};
  tidegate::side_by_side(2, max_threads, kWork, [&](int job, const tidegate::Place& place) {
    ran[job].fetch_add(1);
    if (place.thread == 0) total.fetch_add(place.threads);
    for (int meeting = 1; meeting <= 1 + job; ++meeting) {
      there[job].fetch_add(1);
      if (place.threads > 1) tidegate::barrier_wait(place.barrier);
      if (there[job] == meeting * place.threads) seen_all.fetch_add(1);
      if (place.threads > 1) tidegate::barrier_wait(place.barrier);
    }
  });
  const int all = ran[0] + ran[1];
  return ran[0] >= 1 && ran[0] <= max_threads && (ran[0] == ran[1] || ran[0] == ran[1] + 1) &&
         all == total && seen_all == ran[0] + 2 * ran[1];
}

TEST(jobs_side_by_side) {
  tidegate::set_parallel_threshold(0);
  for (int threads : {1, 2, 3, 7, 16}) {
    int groups = 0, got[2] = {};
    tidegate::side_by_side(2, threads, kWork, [&](int job, const tidegate::Place& place) {
      if (place.thread == 0) got[job] = place.threads;
      if (place.thread == 0 && job == 0) groups = place.groups;
    });
    CHECK(groups == std::min(threads, 2));
    CHECK(threads == 1 ? got[0] == 1 && got[1] == 1 : got[0] + got[1] == threads);
    for (int i = 0; i < 50; ++i) CHECK(two_jobs_are_done(threads));
  }
  tidegate::set_parallel_threshold(1);  // who does not show up is not waited for
  for (int threads : {2, 3, 7})
    for (int i = 0; i < 300; ++i) {
      CHECK(two_jobs_are_done(threads));
      if (i % 50 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
  tidegate::set_parallel_threshold(0);
}

TEST(many_callers_at_once) {
  std::atomic<int> failures{0};
  std::vector<std::thread> callers;
  for (int i = 0; i < 6; ++i)
    callers.emplace_back([&] {
      for (int k = 0; k < 50; ++k) failures += !team_is_complete(3);
    });
  for (std::thread& caller : callers) caller.join();
  CHECK(failures == 0);
}

TEST(a_sleeping_team_wakes) {
  for (int i = 0; i < 5; ++i) {
    CHECK(team_is_complete(3));
    std::this_thread::sleep_for(std::chrono::milliseconds(3));
  }
}

// No single one of them is worth waiting for a sleeper.
TEST(small_calls_that_follow_each_other_wake_the_team) {
  if (std::thread::hardware_concurrency() < 2) return;
  tidegate::set_parallel_threshold(1);
  for (int i = 0; i < 3; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(30));
    const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    int threads = 0;
    while (threads != 2 && std::chrono::steady_clock::now() < until)
      tidegate::parallel(2, kWork, [&](int thread, int count, tidegate::Barrier*) {
        if (thread == 0) threads = count;
      });
    CHECK(threads == 2);
  }
  tidegate::set_parallel_threshold(0);
}

#if !defined(__SANITIZE_THREAD__)  // which does not follow threads started after fork
TEST(a_forked_child_has_a_team_of_its_own) {
  CHECK(team_is_complete(3));
  const pid_t child = fork();
  if (child == 0) {
    alarm(20);  // a child that hangs must end
    _exit(team_is_complete(3) ? 0 : 1);
  }
  int status = -1;
  CHECK(waitpid(child, &status, 0) == child);
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  CHECK(team_is_complete(3));
}
#endif

TEST(denormals_are_flushed_inside_and_kept_outside) {
  volatile float tiny = 1e-38f;
  float inside = 1;
  tidegate::parallel(1, kWork, [&](int, int, tidegate::Barrier*) { inside = tiny * 0.1f; });
  CHECK(inside == 0);
  CHECK(tiny * 0.1f != 0);
}
