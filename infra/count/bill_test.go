package count_test

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/smithy-go/middleware"

	"muster/shared/dynamo"
)

// bill counts what AWS bills for the requests of the clients that it is in: read and write units by the sizes of the items,
// index writes as the table's indexes would have them, SQS requests by 64 KB.
type bill struct {
	mu sync.Mutex
	// who is whose requests they are now.
	who   string
	lines []*line
	// sent counts the messages that were sent, by the URL of their queue.
	sent map[string]int
	// items are those that the table holds: what an index write costs depends on what was there.
	items map[string]item
}

type item = map[string]types.AttributeValue

// line is one operation of one function.
type line struct {
	who, operation             string
	requests                   int
	reads                      float64
	writes, indexWrites, queue int
}

func newBill() *bill { return &bill{sent: map[string]int{}, items: map[string]item{}} }

// by gives the account for what is asked from now on.
func (b *bill) by(who string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.who = who
}

// in makes the clients of a configuration count. It sees each operation once, however often the SDK retries it.
func (b *bill) in(c aws.Config) aws.Config {
	c.APIOptions = append(slices.Clone(c.APIOptions), func(s *middleware.Stack) error {
		return s.Initialize.Add(middleware.InitializeMiddlewareFunc("bill",
			func(ctx context.Context, in middleware.InitializeInput, next middleware.InitializeHandler) (middleware.InitializeOutput, middleware.Metadata, error) {
				out, metadata, err := next.HandleInitialize(ctx, in)
				b.count(in.Parameters, out.Result, err)
				return out, metadata, err
			}), middleware.Before)
	})
	return c
}

func (b *bill) count(in, out any, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	l := b.line(strings.TrimSuffix(reflect.TypeOf(in).Elem().Name(), "Input"))
	l.requests++
	switch in := in.(type) {
	case *dynamodb.GetItemInput:
		size := 0
		if err == nil {
			size = sizeOf(out.(*dynamodb.GetItemOutput).Item)
		}
		l.reads += readUnits(size, in.ConsistentRead)
	case *dynamodb.QueryInput:
		size := 0
		if err == nil {
			for _, it := range out.(*dynamodb.QueryOutput).Items {
				size += sizeOf(it)
			}
		}
		l.reads += readUnits(size, in.ConsistentRead)
	case *dynamodb.PutItemInput:
		b.write(l, nameOf(in.Item), in.Item, err)
	case *dynamodb.DeleteItemInput:
		b.write(l, nameOf(in.Key), nil, err)
	case *sqs.SendMessageBatchInput:
		size := 0
		for _, e := range in.Entries {
			size += len(*e.MessageBody)
		}
		l.queue += units(size, 64<<10)
		b.sent[*in.QueueUrl] += len(in.Entries)
	case *sqs.ReceiveMessageInput:
		size := 0
		if err == nil {
			for _, m := range out.(*sqs.ReceiveMessageOutput).Messages {
				size += len(*m.Body)
			}
		}
		l.queue += units(size, 64<<10)
	case *sqs.DeleteMessageInput, *sqs.ChangeMessageVisibilityInput:
		l.queue++
	default:
		panic(fmt.Sprintf("nobody has said what %T costs", in))
	}
}

func (b *bill) line(operation string) *line {
	for _, l := range b.lines {
		if l.who == b.who && l.operation == operation {
			return l
		}
	}
	l := &line{who: b.who, operation: operation}
	b.lines = append(b.lines, l)
	return l
}

// write bills a put, or a delete for no item. A condition that fails costs as much as what was there, and no index.
func (b *bill) write(l *line, name string, it item, err error) {
	old := b.items[name]
	if err != nil {
		l.writes += units(sizeOf(old), 1<<10)
		return
	}
	l.writes += units(max(sizeOf(old), sizeOf(it)), 1<<10)
	for _, index := range dynamo.Table("").GlobalSecondaryIndexes {
		l.indexWrites += indexWrites(index, old, it)
	}
	b.items[name] = it
}

// indexWrites is what an index is charged when an item takes the place of another: nothing unless something that it shows
// changes; for a change of its key a delete and a put.
func indexWrites(index types.GlobalSecondaryIndex, old, new item) int {
	before, after := shown(index, old), shown(index, new)
	switch {
	case reflect.DeepEqual(before, after):
		return 0
	case before == nil:
		return units(sizeOf(after), 1<<10)
	case after == nil:
		return units(sizeOf(before), 1<<10)
	}
	for _, k := range index.KeySchema {
		if !reflect.DeepEqual(before[*k.AttributeName], after[*k.AttributeName]) {
			return units(sizeOf(before), 1<<10) + units(sizeOf(after), 1<<10)
		}
	}
	return units(max(sizeOf(before), sizeOf(after)), 1<<10)
}

// shown is the item as an index has it; nil when it is not in there.
func shown(index types.GlobalSecondaryIndex, it item) item {
	names := slices.Clone(index.Projection.NonKeyAttributes)
	for _, k := range index.KeySchema {
		if it[*k.AttributeName] == nil {
			return nil
		}
		names = append(names, *k.AttributeName)
	}
	if index.Projection.ProjectionType == types.ProjectionTypeAll {
		return it
	}
	for _, k := range dynamo.Table("").KeySchema {
		names = append(names, *k.AttributeName)
	}
	view := item{}
	for _, name := range names {
		if v := it[name]; v != nil {
			view[name] = v
		}
	}
	return view
}

func nameOf(it item) string {
	var name []string
	for _, k := range dynamo.Table("").KeySchema {
		name = append(name, it[*k.AttributeName].(*types.AttributeValueMemberS).Value)
	}
	return strings.Join(name, "\x00")
}

// sizeOf is the size that DynamoDB charges for: names and values, numbers by two digits.
func sizeOf(it item) int {
	size := 0
	for name, value := range it {
		size += len(name)
		switch v := value.(type) {
		case *types.AttributeValueMemberS:
			size += len(v.Value)
		case *types.AttributeValueMemberB:
			size += len(v.Value)
		case *types.AttributeValueMemberN:
			size += (len(v.Value)+1)/2 + 1
		default:
			panic(fmt.Sprintf("nobody has said how large %T is", v))
		}
	}
	return size
}

func units(size, unit int) int { return max(1, (size+unit-1)/unit) }

func readUnits(size int, consistent *bool) float64 {
	n := float64(units(size, 4<<10))
	if !aws.ToBool(consistent) {
		n /= 2
	}
	return n
}

// sum adds up all lines, or those of one function.
func (b *bill) sum(who string) line {
	b.mu.Lock()
	defer b.mu.Unlock()
	total := line{who: who}
	for _, l := range b.lines {
		if who == "" || who == l.who {
			total.requests += l.requests
			total.reads += l.reads
			total.writes += l.writes
			total.indexWrites += l.indexWrites
			total.queue += l.queue
		}
	}
	return total
}

// table shows the lines as a table in Markdown.
func (b *bill) table() string {
	var text strings.Builder
	w := tabwriter.NewWriter(&text, 0, 0, 1, ' ', 0)
	fmt.Fprintln(w, "| by\t| operation\t| requests\t| read units\t| write units\t| of indexes\t| SQS requests\t|")
	fmt.Fprintln(w, "|---\t|---\t|--:\t|--:\t|--:\t|--:\t|--:\t|")
	row := func(l line) {
		fmt.Fprintf(w, "| %s\t| %s\t| %d\t| %.1f\t| %d\t| %d\t| %d\t|\n", l.who, l.operation, l.requests, l.reads, l.writes, l.indexWrites, l.queue)
	}
	for _, l := range b.lines {
		row(*l)
	}
	all := b.sum("")
	all.who, all.operation = "all", ""
	row(all)
	w.Flush()
	return text.String()
}
