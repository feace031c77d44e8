#pragma once

#include <pthread.h>

#include <memory>
#include <new>

namespace patchcut {

// One T for each thread, made where the thread first asks for it, and destroyed with the thread. Where there
// is no memory for it, it throws std::bad_alloc; a thread_local T with a destructor ends the process there.
template <class T>
class PerThread {
 public:
  static T& get() { return value_ == nullptr ? make() : *value_; }

 private:
  static T& make() {
    static const pthread_key_t key = make_key();
    auto made = std::make_unique<T>();
    if (pthread_setspecific(key, made.get()) != 0) throw std::bad_alloc();
    value_ = made.release();
    return *value_;
  }

  static pthread_key_t make_key() {
    pthread_key_t key;
    if (pthread_key_create(&key, [](void* value) { delete static_cast<T*>(value); }) != 0) {
      throw std::bad_alloc();
    }
    return key;
  }

  static inline thread_local T* value_ = nullptr;
};

}  // namespace patchcut
