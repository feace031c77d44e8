#pragma once

#include <cstddef>
#include <functional>

// Threads of control that hand over to each other by hand: a block's CUDA threads on one thread of the host.
namespace host_cuda {

constexpr int kMaxFibers = 1024;

// Makes fiber `index` ready to run `body` from its start; whatever it ran before is forgotten.
void prepare_fiber(int index, const std::function<void()>* body);

// Runs fiber `index` until it calls leave_fiber() or its body returns; true where the body returned.
bool enter_fiber(int index);

// Called in a fiber: goes back to enter_fiber().
void leave_fiber();

}  // namespace host_cuda
