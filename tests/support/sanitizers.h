// Which sanitizer the tests were compiled with: gcc defines a macro, clang has a feature.
#ifndef GROUPCOMMIT_TESTS_SUPPORT_SANITIZERS_H_
#define GROUPCOMMIT_TESTS_SUPPORT_SANITIZERS_H_

#if defined(__SANITIZE_ADDRESS__)
#define GROUPCOMMIT_TEST_ADDRESS_SANITIZER 1
#endif
#if defined(__SANITIZE_THREAD__)
#define GROUPCOMMIT_TEST_THREAD_SANITIZER 1
#endif

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define GROUPCOMMIT_TEST_ADDRESS_SANITIZER 1
#endif
#if __has_feature(thread_sanitizer)
#define GROUPCOMMIT_TEST_THREAD_SANITIZER 1
#endif
#endif

#endif  // GROUPCOMMIT_TESTS_SUPPORT_SANITIZERS_H_
