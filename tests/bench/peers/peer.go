// An SSH client and server of golang.org/x/crypto/ssh that speak the lines of tests/bench/ends.
//
//	peer client|server SETTING
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/crypto/ssh"
)

const block = 32 * 1024

type setting struct {
	Cipher string `json:"cipher"`
	Mac    string `json:"mac"`
	Kex    string `json:"kex"`
	Keys   string `json:"keys"`
	Port   int    `json:"port"`
	User   string `json:"user"`
}

type job struct {
	Work    string `json:"work"`
	Amount  int64  `json:"amount"`
	Warming int64  `json:"warming"`
	Already int64  `json:"already"`
}

type state struct {
	CPU    float64 `json:"cpu"`
	Wall   float64 `json:"wall"`
	Memory int64   `json:"memory"`
}

var (
	lines = bufio.NewReader(os.Stdin)
	begun = time.Now()
)

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func say(words any) {
	data, err := json.Marshal(words)
	must(err)
	os.Stdout.Write(append(data, '\n'))
}

func hear() ([]byte, bool) {
	line, err := lines.ReadBytes('\n')
	return line, err == nil
}

func seconds(t syscall.Timeval) float64 { return float64(t.Sec) + float64(t.Usec)/1e6 }

func now() state {
	var used syscall.Rusage
	must(syscall.Getrusage(syscall.RUSAGE_SELF, &used))
	var pages int64
	if data, err := os.ReadFile("/proc/self/statm"); err == nil {
		pages, _ = strconv.ParseInt(strings.Fields(string(data))[1], 10, 64)
	}
	return state{seconds(used.Utime) + seconds(used.Stime), time.Since(begun).Seconds(), pages * int64(os.Getpagesize())}
}

func (s setting) common() ssh.Config {
	config := ssh.Config{KeyExchanges: []string{s.Kex}, Ciphers: []string{s.Cipher}}
	if s.Mac != "" {
		config.MACs = []string{s.Mac}
	}
	return config
}

var signers = map[string]ssh.Signer{}

func (s setting) signer(name string) ssh.Signer {
	if signer, ok := signers[name]; ok {
		return signer
	}
	data, err := os.ReadFile(filepath.Join(s.Keys, name))
	must(err)
	signer, err := ssh.ParsePrivateKey(data)
	must(err)
	signers[name] = signer
	return signer
}

func serve(s setting) {
	user := string(s.signer("user_key").PublicKey().Marshal())
	config := &ssh.ServerConfig{
		Config: s.common(),
		PublicKeyCallback: func(_ ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
			if string(key.Marshal()) != user {
				return nil, fmt.Errorf("unknown key")
			}
			return nil, nil
		},
	}
	config.AddHostKey(s.signer("host_key"))
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(err)
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go connection(conn, config)
		}
	}()
	say(map[string]int{"port": listener.Addr().(*net.TCPAddr).Port})
	for {
		if _, ok := hear(); !ok {
			return
		}
		say(now())
	}
}

func connection(conn net.Conn, config *ssh.ServerConfig) {
	defer conn.Close()
	_, channels, requests, err := ssh.NewServerConn(conn, config)
	if err != nil {
		return
	}
	go ssh.DiscardRequests(requests)
	for opening := range channels {
		channel, asked, err := opening.Accept()
		if err != nil {
			return
		}
		go session(channel, asked)
	}
}

func session(channel ssh.Channel, asked <-chan *ssh.Request) {
	for request := range asked {
		if request.Type != "exec" {
			request.Reply(false, nil)
			continue
		}
		var command struct{ Text string }
		must(ssh.Unmarshal(request.Payload, &command))
		request.Reply(true, nil)
		go run(channel, strings.Fields(command.Text))
	}
}

func run(channel ssh.Channel, words []string) {
	switch words[0] {
	case "download":
		left, _ := strconv.ParseInt(words[1], 10, 64)
		write(channel, left)
	case "upload":
		drop(channel)
	case "hold":
		channel.Read(make([]byte, 1))
	}
	channel.SendRequest("exit-status", false, ssh.Marshal(struct{ Status uint32 }{0}))
	channel.Close()
}

func write(to io.Writer, left int64) {
	data := make([]byte, block)
	for left > 0 {
		if left < block {
			data = data[:left]
		}
		count, err := to.Write(data)
		if err != nil {
			return
		}
		left -= int64(count)
	}
}

func drop(from io.Reader) (total int64) {
	data := make([]byte, 256*1024)
	for {
		count, err := from.Read(data)
		total += int64(count)
		if err != nil {
			return
		}
	}
}

func (s setting) login() *ssh.Client {
	client, err := ssh.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", s.Port), &ssh.ClientConfig{
		Config:          s.common(),
		User:            s.User,
		Auth:            []ssh.AuthMethod{ssh.PublicKeys(s.signer("user_key"))},
		HostKeyCallback: ssh.FixedHostKey(s.signer("host_key").PublicKey()),
	})
	must(err)
	return client
}

func (j job) timed(work func()) {
	say(map[string]bool{"ready": true})
	hear()
	before := now()
	work()
	after := now()
	say(state{after.CPU - before.CPU, after.Wall - before.Wall, after.Memory - before.Memory})
	hear()
}

func (j job) begin(client *ssh.Client, command string) *ssh.Session {
	session, err := client.NewSession()
	must(err)
	must(session.Start(command))
	return session
}

func (j job) do(s setting) {
	if j.Work == "connect" {
		some := func(count int64) {
			for ; count > 0; count-- {
				s.login().Close()
			}
		}
		some(j.Warming)
		j.timed(func() { some(j.Amount) })
		return
	}
	if j.Work == "connections" {
		var held []*ssh.Client
		fill := func(count int64) {
			for int64(len(held)) < count {
				held = append(held, s.login())
			}
		}
		fill(j.Already)
		j.timed(func() { fill(j.Amount) })
		for _, client := range held {
			client.Close()
		}
		return
	}
	client := s.login()
	defer client.Close()
	if j.Work == "channels" {
		count := int64(0)
		fill := func(until int64) {
			for ; count < until; count++ {
				j.begin(client, "hold")
			}
		}
		fill(j.Already)
		j.timed(func() { fill(j.Amount) })
		return
	}
	j.some(client, j.Warming)
	j.timed(func() { j.some(client, j.Amount) })
}

func (j job) some(client *ssh.Client, amount int64) {
	switch j.Work {
	case "download":
		session, err := client.NewSession()
		must(err)
		out, err := session.StdoutPipe()
		must(err)
		must(session.Start(fmt.Sprintf("download %d", amount)))
		if count := drop(out); count != amount {
			must(fmt.Errorf("%d bytes of %d have come", count, amount))
		}
		must(session.Wait())
	case "upload":
		session, err := client.NewSession()
		must(err)
		in, err := session.StdinPipe()
		must(err)
		must(session.Start("upload"))
		write(in, amount)
		in.Close()
		must(session.Wait())
	case "exec":
		for ; amount > 0; amount-- {
			must(j.begin(client, "true").Wait())
		}
	case "exec50":
		for ; amount > 0; amount -= 50 {
			var all sync.WaitGroup
			for each := 0; each < 50; each++ {
				all.Add(1)
				go func() {
					defer all.Done()
					must(j.begin(client, "true").Wait())
				}()
			}
			all.Wait()
		}
	}
}

func main() {
	var s setting
	must(json.Unmarshal([]byte(os.Args[2]), &s))
	if os.Args[1] == "server" {
		serve(s)
		return
	}
	for {
		line, ok := hear()
		if !ok {
			return
		}
		var j job
		must(json.Unmarshal(line, &j))
		j.do(s)
		say(map[string]bool{"over": true})
	}
}
