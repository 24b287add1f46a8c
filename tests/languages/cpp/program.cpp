// Does what the first line of its input says; see the folder's README.
// The header that is made ready in the image comes first: it is taken as it is only there.
#include <iostream>

#include <cstring>
#include <stdexcept>
#include <string>

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/vm_sockets.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

// C++20: a concept.
template <class Address>
concept SocketAddress = requires(Address address) { sizeof(address); };

template <SocketAddress Address>
void try_connect(const std::string& name, int family, const Address& address) {
    int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK, 0);
    bool connected = false;
    if (fd >= 0) {
        connected = connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
        if (!connected && errno == EINPROGRESS) {
            pollfd wait{fd, POLLOUT, 0};
            int error = 1;
            socklen_t length = sizeof error;
            if (poll(&wait, 1, 2000) == 1) getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length);
            connected = error == 0;
        }
        close(fd);
    }
    std::cout << (connected ? "CONNECTED " : "denied ") << name << "\n";
}

void try_tcp(const std::string& host, unsigned short port) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    inet_pton(AF_INET, host.c_str(), &address.sin_addr);
    try_connect(host + ":" + std::to_string(port), AF_INET, address);
}

void try_vsock(unsigned cid, unsigned port) {
    sockaddr_vm address{};
    address.svm_family = AF_VSOCK;
    address.svm_cid = cid;
    address.svm_port = port;
    try_connect("vsock " + std::to_string(cid) + ":" + std::to_string(port), AF_VSOCK, address);
}

void try_write(const std::string& folder) {
    std::string path = folder + "/was-here";
    int fd = open(path.c_str(), O_WRONLY | O_CREAT, 0644);
    std::cout << (fd >= 0 ? "WROTE " : "denied ") << path << "\n";
    if (fd >= 0) close(fd);
}

// Children go on: who started them ends, and they do not.
void fork_for_ever() {
    pid_t parent = getpid();
    for (;;) {
        if (fork() < 0 && getpid() == parent) {
            std::cout << "refused\n";
            return;
        }
    }
}

void leave_child() {
    if (fork() == 0) {
        setsid();
        execlp("sleep", "sleep", "1000000", nullptr);
        _exit(127);
    }
    std::cout << "left\n";
}

int main() {
    std::string first;
    std::getline(std::cin, first);
    std::string word = first.substr(0, first.find(' '));
    if (word == "hello") {
        std::cout << "hello\n";
    } else if (word == "echo") {
        std::cout << std::cin.rdbuf();
    } else if (word == "exit") {
        return std::stoi(first.substr(word.size()));
    } else if (word == "raise") {
        throw std::runtime_error("as asked");
    } else if (word == "segfault") {
        *static_cast<volatile int*>(nullptr) = 1;
    } else if (word == "spin") {
        for (volatile bool on = true; on;) {}
    } else if (word == "memory") {
        for (;;) std::memset(new char[1 << 22], 1, 1 << 22);
    } else if (word == "fork") {
        fork_for_ever();
    } else if (word == "flood") {
        std::string line(65535, 'x');
        for (;;) std::cout << line << "\n";
    } else if (word == "write") {
        for (const char* folder : {"", "/etc", "/usr", "/home", "/home/user"}) try_write(folder);
    } else if (word == "net") {
        try_tcp("1.1.1.1", 80);
        try_tcp("127.0.0.1", 22);
        for (unsigned port : {9U, 1024U, 52000U}) {
            try_vsock(VMADDR_CID_LOCAL, port);
            try_vsock(VMADDR_CID_HOST, port);
        }
    } else if (word == "child") {
        leave_child();
    } else {
        throw std::invalid_argument("no such command: " + word);
    }
}
