// Prints bits and uniform numbers of random.h: arguments are the seed, the stream and the indices.

#include <cinttypes>
#include <cstdio>
#include <cstdlib>

#include "cpu/random.h"

int main(int count, char** arguments) {
  const auto number = [&](int i) { return std::strtoull(arguments[i], nullptr, 10); };
  const patchcut::RandomStream stream(number(1), number(2));
  for (int i = 3; i < count; ++i) {
    std::printf("%" PRIu64 " %.17g\n", stream.bits(number(i)),
                static_cast<double>(stream.uniform(number(i))));
  }
}
