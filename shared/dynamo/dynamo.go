// Package dynamo keeps records in one DynamoDB table: an item for each, two sparse indexes, TTL.
//
// A put is one PutItem with a condition on the revision, and the item that made it fail comes back with the refusal, so a
// lost race costs no second request. Get and Scan read consistently. DynamoDB deletes what has expired within days, so
// every read looks at the time itself. Retries are the SDK's: a put that is repeated after its answer was lost meets
// itself and is a conflict whose winner is the caller's own record.
package dynamo

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"muster/shared/fault"
	"muster/shared/record"
)

// Store is a record.Store in a table.
type Store struct {
	// Now is the clock, time.Now unless a test sets another before the first use.
	Now func() time.Time

	client *dynamodb.Client
	table  *string
}

var _ record.Store = (*Store)(nil)

// New gives the store in a table that Table describes.
func New(client *dynamodb.Client, table string) *Store {
	return &Store{Now: time.Now, client: client, table: aws.String(table)}
}

// Get reads one record.
func (s *Store) Get(ctx context.Context, k record.Key) (record.Record, error) {
	out, err := s.client.GetItem(ctx, &dynamodb.GetItemInput{TableName: s.table, Key: key(k), ConsistentRead: aws.Bool(true)})
	if err != nil {
		return record.Record{}, fmt.Errorf("get %s %s: %w", k.Part, k.Sort, err)
	}
	r, live, err := s.read(out.Item)
	if err != nil {
		return record.Record{}, err
	}
	if !live {
		return record.Record{}, fault.New(fault.NotFound, "This does not exist.")
	}
	return r, nil
}

// Put writes one record.
func (s *Store) Put(ctx context.Context, r record.Record) (int64, error) {
	if err := r.Check(); err != nil {
		return 0, err
	}
	in := &dynamodb.PutItemInput{
		TableName:                           s.table,
		Item:                                item(r),
		ExpressionAttributeValues:           map[string]types.AttributeValue{":now": number(s.Now().Unix())},
		ReturnValuesOnConditionCheckFailure: types.ReturnValuesOnConditionCheckFailureAllOld,
	}
	if r.Rev == 0 {
		in.ConditionExpression = aws.String("attribute_not_exists(pk) OR expires <= :now")
	} else {
		in.ConditionExpression = aws.String("rev = :rev AND (attribute_not_exists(expires) OR expires > :now)")
		in.ExpressionAttributeValues[":rev"] = number(r.Rev)
	}
	if _, err := s.client.PutItem(ctx, in); err != nil {
		return 0, fmt.Errorf("put %s %s: %w", r.Part, r.Sort, s.conflict(err))
	}
	return r.Rev + 1, nil
}

// Delete removes one record.
func (s *Store) Delete(ctx context.Context, k record.Key, revision int64) error {
	_, err := s.client.DeleteItem(ctx, &dynamodb.DeleteItemInput{
		TableName:           s.table,
		Key:                 key(k),
		ConditionExpression: aws.String("attribute_not_exists(pk) OR rev = :rev OR expires <= :now"),
		ExpressionAttributeValues: map[string]types.AttributeValue{
			":rev": number(revision), ":now": number(s.Now().Unix()),
		},
		ReturnValuesOnConditionCheckFailure: types.ReturnValuesOnConditionCheckFailureAllOld,
	})
	if err != nil {
		return fmt.Errorf("delete %s %s: %w", k.Part, k.Sort, s.conflict(err))
	}
	return nil
}

// conflict makes a failed condition what the port promises, and leaves other errors alone.
func (s *Store) conflict(err error) error {
	var failed *types.ConditionalCheckFailedException
	if !errors.As(err, &failed) {
		return err
	}
	current, live, err := s.read(failed.Item)
	if err != nil {
		return err
	}
	return record.ConflictWith(current, live)
}

// Scan reads a part of a partition.
func (s *Store) Scan(ctx context.Context, scan record.Scan) ([]record.Record, error) {
	if scan.To != "" && scan.From >= scan.To {
		return nil, nil
	}
	condition := "pk = :part"
	values := map[string]types.AttributeValue{":part": text(scan.Part)}
	if scan.From != "" {
		values[":from"] = text(scan.From)
	}
	if scan.To != "" {
		// What is after every key is no UTF-8, which DynamoDB needs: the last of all characters stands in for it.
		values[":to"] = text(strings.ToValidUTF8(scan.To, "\U0010ffff"))
	}
	switch {
	case scan.From != "" && scan.To == record.Prefix(scan.Part, scan.From).To:
		condition += " AND begins_with(sk, :from)"
		delete(values, ":to")
	case scan.From != "" && scan.To != "":
		condition += " AND sk BETWEEN :from AND :to" // to included: DynamoDB takes one condition on a sort key
	case scan.From != "":
		condition += " AND sk >= :from"
	case scan.To != "":
		condition += " AND sk < :to"
	}
	found, err := s.query(ctx, &dynamodb.QueryInput{
		KeyConditionExpression:    &condition,
		ExpressionAttributeValues: values,
		ConsistentRead:            aws.Bool(true),
		ScanIndexForward:          aws.Bool(!scan.Backward),
	}, scan.Limit, func(r record.Record) bool { return scan.To == "" || r.Sort < scan.To })
	if err != nil {
		return nil, fmt.Errorf("scan %s: %w", scan.Part, err)
	}
	return found, nil
}

// Due finds what is due.
func (s *Store) Due(ctx context.Context, shard int, notAfter time.Time, limit int) ([]record.Entry, error) {
	found, err := s.query(ctx, &dynamodb.QueryInput{
		IndexName:              aws.String(due),
		KeyConditionExpression: aws.String("gsi1pk = :shard AND gsi1sk <= :until"),
		ExpressionAttributeValues: map[string]types.AttributeValue{
			":shard": text(shardName(shard)), ":until": text(millis(notAfter)),
		},
	}, limit, all)
	if err != nil {
		return nil, fmt.Errorf("find what is due: %w", err)
	}
	return entries(found), nil
}

// List finds the records of a list.
func (s *Store) List(ctx context.Context, name, before string, limit int) ([]record.Entry, error) {
	return s.list(ctx, name, before, false, limit)
}

// Oldest finds the records at the end of a list.
func (s *Store) Oldest(ctx context.Context, name string, limit int) ([]record.Entry, error) {
	return s.list(ctx, name, "", true, limit)
}

func (s *Store) list(ctx context.Context, name, before string, ascending bool, limit int) ([]record.Entry, error) {
	condition := "gsi2pk = :list"
	values := map[string]types.AttributeValue{":list": text(name)}
	if before != "" {
		condition += " AND gsi2sk < :before"
		values[":before"] = text(before)
	}
	found, err := s.query(ctx, &dynamodb.QueryInput{
		IndexName:                 aws.String(list),
		KeyConditionExpression:    &condition,
		ExpressionAttributeValues: values,
		ScanIndexForward:          &ascending,
	}, limit, all)
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", name, err)
	}
	return entries(found), nil
}

func entries(found []record.Record) []record.Entry {
	all := make([]record.Entry, len(found))
	for i, r := range found {
		all[i] = record.Entry{Key: r.Key, Due: r.Due, Order: r.Order}
	}
	return all
}

func all(record.Record) bool { return true }

// query reads page after page until it has as many live records that match as the limit says (0 is no limit).
func (s *Store) query(ctx context.Context, in *dynamodb.QueryInput, limit int, match func(record.Record) bool) ([]record.Record, error) {
	in.TableName = s.table
	if limit > 0 {
		in.Limit = aws.Int32(int32(limit))
	}
	var found []record.Record
	pages := dynamodb.NewQueryPaginator(s.client, in)
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, err
		}
		for _, it := range page.Items {
			r, live, err := s.read(it)
			if err != nil {
				return nil, err
			}
			if !live || !match(r) {
				continue
			}
			if found = append(found, r); len(found) == limit {
				return found, nil
			}
		}
	}
	return found, nil
}

func key(k record.Key) map[string]types.AttributeValue {
	return map[string]types.AttributeValue{part: text(k.Part), sort: text(k.Sort)}
}

// item is what a put of the record writes.
func item(r record.Record) map[string]types.AttributeValue {
	it := key(r.Key)
	it[rev] = number(r.Rev + 1)
	if len(r.Body) > 0 {
		it[body] = &types.AttributeValueMemberB{Value: r.Body}
	}
	if !r.Due.IsZero() {
		it[dueShard], it[dueTime] = text(shardName(record.Shard(r.Part))), text(millis(r.Due))
	}
	if r.List != "" {
		it[listName], it[listOrder] = text(r.List), text(r.Order)
	}
	if !r.Expires.IsZero() {
		it[expires] = number(r.Expires.Unix())
	}
	return it
}

// read gives the record of an item, and whether it is there and has not expired.
func (s *Store) read(it map[string]types.AttributeValue) (r record.Record, live bool, err error) {
	if it == nil {
		return record.Record{}, false, nil
	}
	for name, v := range it {
		switch v := v.(type) {
		case *types.AttributeValueMemberS:
			switch name {
			case part:
				r.Part = v.Value
			case sort:
				r.Sort = v.Value
			case listName:
				r.List = v.Value
			case listOrder:
				r.Order = v.Value
			case dueTime:
				var ms int64
				if ms, err = strconv.ParseInt(v.Value, 10, 64); err == nil {
					r.Due = time.UnixMilli(ms).UTC()
				}
			}
		case *types.AttributeValueMemberN:
			var n int64
			n, err = strconv.ParseInt(v.Value, 10, 64)
			switch name {
			case rev:
				r.Rev = n
			case expires:
				r.Expires = time.Unix(n, 0).UTC()
			}
		case *types.AttributeValueMemberB:
			r.Body = v.Value
		}
		if err != nil {
			return record.Record{}, false, fmt.Errorf("the attribute %s of the item %s %s cannot be read: %w", name, r.Part, r.Sort, err)
		}
	}
	return r, r.Expires.IsZero() || s.Now().Unix() < r.Expires.Unix(), nil
}

func text(s string) types.AttributeValue { return &types.AttributeValueMemberS{Value: s} }

func number(n int64) types.AttributeValue {
	return &types.AttributeValueMemberN{Value: strconv.FormatInt(n, 10)}
}

func shardName(shard int) string { return fmt.Sprintf("DUE#%d", shard) }

// millis has as many digits for every time, so that it sorts as the times do.
func millis(t time.Time) string { return fmt.Sprintf("%015d", max(t.UnixMilli(), 0)) }
